# SPDX-License-Identifier: Apache-2.0
"""The HTTP metrics: names, labels, buckets. Times are seconds, sizes bytes."""

from ..exposition import SharedMetric

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
WEBSOCKET = "WEBSOCKET"  # the method of exceptions in WebSocket handlers
OTHER = "OTHER"  # every other method
OVERFLOW = "overflow"  # the endpoint of series beyond max_series
CLIENT_GONE = 499  # nginx's status for a client that left before the response was complete

# Labels that these metrics have, or that the exposition format reserves.
RESERVED_LABELS = frozenset(
    {
        "method",
        "endpoint",
        "status_code",
        "exception",
        "version",
        "python",
        "outcome",
        "code",
        "le",
        "quantile",
    }
)

# A scrape renders in slices, in the order of these lines, while requests continue. Requests in progress come first: a
# request that a scrape no longer shows there is counted in it.
IN_PROGRESS = SharedMetric("gauge", "http_requests_in_progress", "HTTP requests being answered.")
REQUESTS = SharedMetric("counter", "http_requests", "HTTP requests by route template and status; 499 is client gone.")
# Failed requests are also in the histograms of all requests, in the same buckets. They are exposed before these, so
# that the difference of two buckets is never negative.
FAILED_DURATION = SharedMetric(
    "histogram",
    "http_failed_request_duration_seconds",
    "Duration of requests that failed: status 5xx, incomplete response or exception.",
)
FAILED_START = SharedMetric(
    "histogram", "http_failed_response_start_seconds", "Time until a response that failed started, or was abandoned."
)
DURATION = SharedMetric("histogram", "http_request_duration_seconds", "Time until the last byte of the response.")
START = SharedMetric("histogram", "http_response_start_seconds", "Time until the response starts.")
REQUEST_SIZE = SharedMetric("summary", "http_request_size_bytes", "Request body, as far as the application read it.")
RESPONSE_SIZE = SharedMetric("summary", "http_response_size_bytes", "Response body, as far as it was sent.")
EXCEPTIONS = SharedMetric("counter", "http_exceptions", "Exceptions that no handler caught, by class.")
OVERFLOWED = SharedMetric("counter", "http_metrics_overflow", "Requests counted as overflow: the limit was reached.")
APP_INFO = SharedMetric("gauge", "app_info", "Always 1; the versions of the application and of Python.")

# WebSockets: long-lived connections, which are not counted as requests.
CONNECTION_BUCKETS = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
CONNECTIONS_OPEN = SharedMetric("gauge", "websocket_connections_open", "WebSockets that were accepted and are open.")
CONNECTIONS = SharedMetric("counter", "websocket_connections", "Handshakes of WebSockets by outcome.")
CLOSED = SharedMetric("counter", "websocket_closed", "WebSockets that were accepted and ended, by close code.")
CONNECTION_DURATION = SharedMetric(
    "histogram", "websocket_connection_duration_seconds", "Time from accepting a WebSocket until its end."
)
