# SPDX-License-Identifier: Apache-2.0
"""HTTP metrics of a FastAPI or Starlette application, and its /metrics endpoint.

    app.add_middleware(PrometheusMiddleware)
    app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)

Every request is counted once, when the last byte of its response is sent, under the template of its route (the full
one, of mounts and included routers too) and never under its path. That costs a few look-ups and some ten additions to
doubles, whatever the number of routes or workers; docs/benchmarks.md has the figures.

    middleware  the options, and one Exchange per request      series    where its numbers are counted
    exchange    a request and its response, to its end         routes    the template of its route
    websocket   a WebSocket, from its handshake to its end     failures  what an exception says
    metrics     names, labels, buckets                         endpoint  GET /metrics
"""

from .endpoint import metrics_endpoint
from .middleware import PrometheusMiddleware

__all__ = ["PrometheusMiddleware", "metrics_endpoint"]
