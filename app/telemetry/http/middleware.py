# SPDX-License-Identifier: Apache-2.0
"""The middleware: its options, its exclusions, one Exchange for each request, one Connection for each WebSocket."""

from collections.abc import Collection, Mapping, Sequence
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ..storage import LABEL_NAME, storage, worker
from .exchange import NOT_STARTED, Exchange
from .failures import failed
from .metrics import DURATION_BUCKETS, RESERVED_LABELS
from .routes import path_below, routes_of
from .series import ExemplarLabels, Series
from .websocket import Connection, SocketSeries

_COUNTED = "sightline_telemetry.http"  # marks the scope of a counted request, for middlewares of mounted applications


class PrometheusMiddleware:
    """Counts and times every HTTP request and WebSocket of an application: `app.add_middleware(PrometheusMiddleware)`.

    Add it last, so that it is outermost and sees the responses of the other middlewares.

    Args:
        buckets: upper bounds, in seconds, of the two duration histograms.
        exclude_paths: paths that are not counted at all, for example `("/metrics",)`; without a `root_path`.
        const_labels: labels with constant values for all metrics of this middleware.
        max_series: the number of label combinations after which new ones are counted as `endpoint="overflow"`. One
            combination of a histogram counts as one.
        unmatched_endpoint: the `endpoint` of requests that match no route.
        exemplar: returns, for a scope, the labels of an exemplar such as {"trace_id": ...}, or None. For each bucket,
            it is called until it returns labels, and again after a second, so that rare slow requests have one, too.
        version: the `version` in app_info; by default that of the FastAPI application.

    Raises:
        TypeError: `exclude_paths` is a single string.
        ValueError: `buckets` are not in ascending order, or a name in `const_labels` is reserved or not valid.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        buckets: Sequence[float] = DURATION_BUCKETS,
        exclude_paths: Collection[str] = (),
        const_labels: Mapping[str, str] | None = None,
        max_series: int = 10_000,
        unmatched_endpoint: str = "unmatched",
        exemplar: ExemplarLabels | None = None,
        version: str | None = None,
    ) -> None:
        if isinstance(exclude_paths, str):
            raise TypeError('exclude_paths must be a collection of paths: exclude_paths=("/metrics",)')
        if list(buckets) != sorted(set(buckets)) or not buckets:
            raise ValueError("buckets must be numbers in ascending order")
        constant = {name: str(value) for name, value in sorted(dict(const_labels or {}).items(), key=str)}
        for name in constant:
            valid = isinstance(name, str) and LABEL_NAME.fullmatch(name) and not name.startswith("__")
            if not valid or name in RESERVED_LABELS:
                raise ValueError(f"const_labels: {name!r} is reserved, or not a valid label name")
        self.app = app
        self._exclude = frozenset(exclude_paths)
        self._version = version
        self._series = Series(
            buckets=[float(bound) for bound in buckets if bound < float("inf")],
            const_labels=constant,
            max_series=max_series,
            unmatched_endpoint=unmatched_endpoint,
            exemplar=exemplar,
        )
        self._sockets = SocketSeries(self._series, tuple(constant))
        self._app: Any = None
        self._routes: Sequence[Any] = ()
        self._routes_known = -1
        self._shared = storage.directory is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self._routes) != self._routes_known and _COUNTED not in scope:
            self._learn_routes(scope)
        if scope["type"] != "http" or _COUNTED in scope or (self._exclude and self._excluded(scope)):
            if scope["type"] == "websocket" and _COUNTED not in scope:
                await self._connect(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        scope[_COUNTED] = True
        series = self._series
        exchange = Exchange()  # its attributes are set here: an __init__() would be another call per request
        exchange.series = series
        exchange.scope = scope
        exchange.server_receive = receive
        exchange.server_send = send
        exchange.gone = False
        exchange.head = NOT_STARTED
        exchange.started = 0.0
        exchange.received = exchange.sent = 0
        if self._shared and not series.waiting:
            series.show_soon()
        series.waiting[exchange] = None
        exchange.open = perf_counter()
        try:
            await self.app(scope, exchange, exchange.send)
        except BaseException as error:
            exchange.fail(error)
            raise
        if exchange.open:
            exchange.cut()

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_COUNTED] = True  # a middleware of a mounted application must not count it again, either
        if self._excluded(scope):
            await self.app(scope, receive, send)
            return
        connection = Connection(self._sockets, scope, receive, send)
        try:
            await self.app(scope, connection, connection.send)
        except BaseException as error:
            if failed(error) is not None:  # else cancelled
                await connection.leave()
            connection.fail(error)
            raise
        await connection.leave()
        connection.end(1000, "failed")

    def _excluded(self, scope: Scope) -> bool:
        path = scope["path"]
        return path in self._exclude or path_below(scope.get("root_path", ""), path) in self._exclude

    def _learn_routes(self, scope: Scope) -> None:
        """At the first message, usually of the lifespan, and after routes were added."""
        if self._routes_known < 0:
            worker()  # claims this process's slot
            app = scope.get("app")
            self._app = app if routes_of(app) else self.app
            self._routes = routes_of(self._app)
            self._series.set_info(self._version or str(getattr(app, "version", "") or ""))
        self._series.learn(self._routes, self._app)
        self._routes_known = len(self._routes)
