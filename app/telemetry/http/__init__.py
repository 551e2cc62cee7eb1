# SPDX-License-Identifier: Apache-2.0
"""HTTP metrics of a FastAPI or Starlette application, and its /metrics endpoint.

    app.add_middleware(PrometheusMiddleware)
    app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)

Every request is counted once, when the last byte of its response is sent, under the template of its route (the full
template, including mounts and included routers) and never under its path. That costs a few look-ups and about ten
additions to doubles, for any number of routes or workers; docs/benchmarks.md has the figures.

    middleware  the options, and one Exchange per request      series    where its numbers are counted
    exchange    a request and its response                     routes    the template of its route
    websocket   a WebSocket, from handshake to close           failures  classification of exceptions
    metrics     names, labels, buckets                         endpoint  GET /metrics
"""

from .endpoint import metrics_endpoint
from .middleware import PrometheusMiddleware

__all__ = ["PrometheusMiddleware", "metrics_endpoint"]
