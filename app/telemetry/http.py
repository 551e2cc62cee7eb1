"""HTTP metrics of a FastAPI or Starlette application, and its /metrics endpoint.

    app.add_middleware(PrometheusMiddleware)
    app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)

Every request is counted once, when the last byte of its response is sent, under the template of its route (the full
one, of mounts and included routers too) and never under its path. That costs a few look-ups and some ten additions to
doubles, whatever the number of routes or workers; docs/benchmarks.md has the figures.
"""

import hmac
import logging
import os
import platform
import re
import zlib
from asyncio import CancelledError, get_running_loop
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from time import perf_counter, time
from types import TracebackType
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import gzip_accepted
from starlette.convertors import CONVERTOR_TYPES
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import PARAM_REGEX
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .exposition import Piece, SharedMetric, pieces
from .storage import LABEL_NAME, LOCK, SCRATCH, Family, storage, worker

try:
    from fastapi.routing import iter_route_contexts
except ImportError:  # Starlette alone, or a FastAPI whose included routes stand in the list themselves

    def iter_route_contexts(routes: Sequence[Any]) -> Iterator[Any]:  # type: ignore[misc]
        yield from routes


log = logging.getLogger(__name__)

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
SIZE_BUCKETS = (100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)
SMALL = int(SIZE_BUCKETS[0])
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
OTHER = "OTHER"  # every other method
OVERFLOW = "overflow"
CLIENT_GONE = 499  # nginx's word for a client that left before the response was complete

_TAKEN = frozenset({"method", "endpoint", "status_code", "exception", "version", "python", "le", "quantile"})

REQUESTS = SharedMetric("counter", "http_requests", "HTTP requests by route template and status; 499 is client gone.")
DURATION = SharedMetric("histogram", "http_request_duration_seconds", "Time until the last byte of the response.")
START = SharedMetric("histogram", "http_response_start_seconds", "Time until the response starts.")
REQUEST_SIZE = SharedMetric("histogram", "http_request_size_bytes", "Request body, as far as the application read it.")
RESPONSE_SIZE = SharedMetric("histogram", "http_response_size_bytes", "Response body, as far as it was sent.")
IN_PROGRESS = SharedMetric("gauge", "http_requests_in_progress", "HTTP requests being answered.")
EXCEPTIONS = SharedMetric("counter", "http_exceptions", "Exceptions that no handler caught, by class.")
OVERFLOWED = SharedMetric("counter", "http_metrics_overflow", "Requests counted as overflow: the limit was reached.")
APP_INFO = SharedMetric("gauge", "app_info", "Always 1; the versions of the application and of Python.")

_COUNTED = "telemetry.http"  # in the scope of a request that is counted, for middlewares of mounted applications
_SLICE = 0.002  # seconds a scrape works before it lets requests go on
_MAX_SCRAPES = 16  # in the queue; more are answered 503
_EXEMPLAR_SECONDS = 1.0  # that an exemplar stays, at least: to write one costs twice what counting the request does

_Method = TypeVar("_Method", bound=Callable[..., None])


def _locked(method: _Method) -> _Method:
    """One at a time where Python has no GIL to see to that."""
    if LOCK is None:
        return method
    lock = LOCK

    @wraps(method)
    def locked(*arguments: Any) -> None:
        with lock:
            method(*arguments)

    return cast(_Method, locked)


class _Row:
    """The cells of one method and route template."""

    __slots__ = ("cells", "exceptions", "in_progress", "labels", "statuses")

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.statuses: dict[int, int] = {}
        self.exceptions: dict[str, int] = {}
        self.in_progress = SCRATCH
        self.cells: tuple[int, ...] = (SCRATCH,) * 8  # of the four histograms, each the sum's and the first bucket's


class PrometheusMiddleware:
    """Counts and times every HTTP request of an application: `app.add_middleware(PrometheusMiddleware)`.

    Add it last, so that it is outermost and sees what the other middlewares answer. Websockets are passed through.

    Args:
        buckets: upper bounds, in seconds, of the two histograms of time.
        exclude: paths that are not counted at all, for example `("/metrics",)`.
        labels: labels with constant values for all metrics of this middleware. ValueError for a name that is none.
        limit: the number of label combinations after which new ones are counted as `endpoint="overflow"`.
        unmatched: the `endpoint` of requests that match no route.
        exemplar: gives, for a scope, the labels of an exemplar such as {"trace_id": ...}, or None. It is asked until
            it gives one, then again after a second, for each bucket, so that what is slow and rare has one.
        version: the `version` in app_info; a FastAPI application's own by default.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        buckets: Sequence[float] = DURATION_BUCKETS,
        exclude: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        limit: int = 10_000,
        unmatched: str = "unmatched",
        exemplar: Callable[[Scope], Mapping[str, str] | None] | None = None,
        version: str | None = None,
    ) -> None:
        if isinstance(exclude, str):
            raise TypeError('exclude is a collection of paths: exclude=("/metrics",)')
        if list(buckets) != sorted(set(buckets)) or not buckets:
            raise ValueError("buckets must be numbers in rising order")
        constant = {name: str(value) for name, value in dict(labels or {}).items()}
        for name in constant:
            if not isinstance(name, str) or not LABEL_NAME.fullmatch(name) or name.startswith("__") or name in _TAKEN:
                raise ValueError(f"labels: {name!r} is taken, or no name of a label")
        self.app = app
        self.buckets = [float(bound) for bound in buckets if bound < float("inf")]
        self.bounds = [*self.buckets, float("inf")]
        self.limit = limit
        self._exclude = frozenset(exclude)
        self._unmatched = unmatched
        self.exemplar = exemplar
        self._exemplar_due: dict[int, float] = {}  # by cell
        self._version = version
        self._constant = tuple(constant.values())
        names = ("method", "endpoint", *constant)
        self._requests = REQUESTS.family(("method", "endpoint", "status_code", *constant))
        self._histograms = (
            START.family(names, self.buckets),
            DURATION.family(names, self.buckets),
            REQUEST_SIZE.family(names, SIZE_BUCKETS),
            RESPONSE_SIZE.family(names, SIZE_BUCKETS),
        )
        self._in_progress = IN_PROGRESS.family(names, mode="livesum")
        self._exceptions = EXCEPTIONS.family(("method", "endpoint", "exception", *constant))
        self._info = APP_INFO.family(("version", "python", *constant), mode="livemax")
        self._overflowed = self._cell(OVERFLOWED.family(tuple(constant)), self._constant)
        self._templates = _Templates(())
        self._routes: Sequence[Any] = ()
        self._routes_known = -1
        self._combinations = 0
        self._warned: set[str] = set()
        self._rows: dict[tuple[str, str], _Row] = {}  # by method and endpoint
        self._shared = storage.directory is not None
        self.found: dict[int, dict[str, _Row]] = {}  # by the id of the scope's route, and by method
        self._kept: list[Any] = []  # these routes: as long as they live, no other object has the same id
        self.waiting: dict[_Exchange, None] = {}  # began, and not yet shown as in progress
        self.shown: dict[_Exchange, int] = {}  # and those that are, with the gauge's cell
        self._overflow = _Row((OTHER, OVERFLOW, *self._constant))  # its `statuses` stay empty
        self._overflow_statuses: dict[int, int] = {}
        storage.on_read(self._show)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self._routes) != self._routes_known and _COUNTED not in scope:
            self._learn_routes(scope)
        if scope["type"] != "http" or _COUNTED in scope or (self._exclude and scope["path"] in self._exclude):
            if scope["type"] == "websocket":
                scope[_COUNTED] = True  # a mounted application is none of its own here, either
            await self.app(scope, receive, send)
            return
        scope[_COUNTED] = True
        exchange = _Exchange()  # its attributes are set here: an __init__() would be one more call for each request
        exchange.middleware = self
        exchange.scope = scope
        exchange.server_receive = receive
        exchange.server_send = send
        exchange.gone = False
        exchange.started = 0.0
        exchange.received = exchange.sent = exchange.status = 0
        if self._shared and not self.waiting:
            self._show_soon()
        self.waiting[exchange] = None
        exchange.open = perf_counter()
        try:
            await self.app(scope, exchange, exchange.send)
        except BaseException as error:
            exchange.fail(error)
            raise
        if exchange.open:
            # Nobody complained about the missing rest: the client is gone, or the server will say 500 or cut it off.
            exchange.status = 500
            exchange.finish()

    def _learn_routes(self, scope: Scope) -> None:
        """At the first message, of the lifespan as a rule, and when routes were added."""
        if self._routes_known < 0:
            worker()  # claims this process's slot
            app = scope.get("app")
            self._routes = _routes_of(app) or _routes_of(self.app)
            version = self._version or str(getattr(app, "version", "") or "")
            cell = self._cell(self._info, (version, platform.python_version(), *self._constant))
            storage.cells[cell] = 1.0
        self._templates = _Templates(self._routes)
        self.found.clear()
        self._kept.clear()
        self._routes_known = len(self._routes)

    # Requests in progress. The template is known only once the router has run. Alone in one process nobody looks before
    # the storage is read, and then they are shown. Other workers may look at any time, but not before the handler waits
    # for something: so the gauge is set in the event loop's next round, if there is one.

    def _show_soon(self) -> None:
        try:
            get_running_loop().call_soon(self._show)
        except RuntimeError:  # not asyncio: what the path says will do
            self._show()

    @_locked
    def _show(self) -> None:
        try:
            for exchange in list(self.waiting):
                self.shown[exchange] = cell = self.row(exchange.scope, 0).in_progress
                # Who takes it out decides: if it is finished (in another thread) in this moment, nothing is shown.
                if self.waiting.pop(exchange, 0) is None:
                    storage.cells[cell] += 1.0
                else:
                    self.shown.pop(exchange, None)
        except Exception:
            self.warn("a request in progress was not shown", exc_info=True)

    # Rows

    def row(self, scope: Scope, status: int) -> _Row:
        """The row of a request: its method and the template of its route."""
        route = scope.get("route", scope.get("endpoint"))  # older versions of Starlette tell but the endpoint
        found = self.found.get(id(route))
        if found is not None and scope["method"] in found:
            return found[scope["method"]]
        method = scope["method"] if scope["method"] in METHODS else OTHER
        template, fixed = self._templates.of(scope, status)
        name = self._unmatched if template is None else template
        row = self._rows.get((method, name))
        if row is None:
            if self._room(6):
                row = self._rows[method, name] = _Row((method, name, *self._constant))
                self._fill(row)
                # From 0, or rate() would not see the first failure of an endpoint.
                row.statuses[500] = self._cell(self._requests, (method, name, "500", *self._constant))
            else:
                row = self._overflow
        if fixed and method is not OTHER and row is not self._overflow:
            self.found.setdefault(id(route), {})[method] = row
            self._kept.append(route)
        return row

    def _room(self, combinations: int = 1) -> bool:
        """Whether the limit allows so many more."""
        if self._combinations + combinations <= self.limit:
            self._combinations += combinations
            return True
        self.warn(f"more than {self.limit} label combinations; new ones are counted as endpoint={OVERFLOW!r}")
        if self._overflow.in_progress == SCRATCH:
            self._fill(self._overflow)
        return False

    def _fill(self, row: _Row) -> None:
        row.in_progress = self._cell(self._in_progress, row.labels)
        sums = [self._cell(family, row.labels) for family in self._histograms]
        row.cells = tuple(cell for first in sums for cell in (first, first + 1))

    def _cell(self, family: Family, labelvalues: tuple[str, ...]) -> int:
        start = storage.own(family, labelvalues, alone=False)
        return SCRATCH if start is None else start + 1

    def status_cell(self, row: _Row, status: int) -> int:
        """The counter of a status in a row."""
        known = row.statuses
        if row is self._overflow or not self._room():
            row, known = self._overflow, self._overflow_statuses
        cell = known.get(status)
        if cell is None:
            name = str(status) if 100 <= status <= 599 else "other"
            cell = known[status] = self._cell(self._requests, (*row.labels[:2], name, *self._constant))
        if row is self._overflow:
            storage.cells[self._overflowed] += 1.0
        return cell

    @_locked
    def count_exception(self, row: _Row, error: BaseException) -> None:
        name = type(error).__name__
        if name not in row.exceptions and (row is self._overflow or not self._room()):
            row, name = self._overflow, OVERFLOW
        cell = row.exceptions.get(name)
        if cell is None:
            cell = self._cell(self._exceptions, (*row.labels[:2], name, *self._constant))
            row.exceptions[name] = cell
        storage.cells[cell] += 1.0

    def exemplify(self, scope: Scope, cell: int, bucket: int, elapsed: float, now: float) -> None:
        """Keep the request as the exemplar of its counter and its bucket, where the last one is old enough."""
        due = self._exemplar_due
        if self.exemplar is None or (due.get(bucket, 0.0) > now and due.get(cell, 0.0) > now):
            return
        try:
            labels = self.exemplar(scope)
            if not labels:
                return
            for target, value in ((bucket, elapsed), (cell, 1.0)):
                if due.get(target, 0.0) <= now:
                    storage.write_exemplar(target, labels, value, time())
                    due[target] = now + _EXEMPLAR_SECONDS
        except Exception:
            self.warn("an exemplar was not kept", exc_info=True)

    def size_of(self, path: str) -> int:
        """Of a file that the server sends by itself; it was just looked at, so that this does not wait for a disk."""
        try:
            return os.stat(path).st_size
        except OSError:
            self.warn("the size of a file that the server sends is not known")
            return 0

    def warn(self, message: str, *, exc_info: bool = False) -> None:
        """Say it once."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning("HTTP metrics: %s", message, exc_info=exc_info)


class _Exchange:
    """One request and its response."""

    __slots__ = (
        "gone",
        "middleware",
        "open",
        "received",
        "scope",
        "sent",
        "server_receive",
        "server_send",
        "started",
        "status",
    )

    middleware: PrometheusMiddleware
    scope: Scope
    server_receive: Receive
    server_send: Send
    open: float  # since when; 0 once it is counted
    gone: bool  # the client
    status: int
    started: float  # when the response did
    received: int  # bytes of the bodies
    sent: int

    async def __call__(self) -> Message:
        message = await self.server_receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body") or b"")
        elif self.open:
            self.gone = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        # No coroutine around the server's. Counted just before the last bytes go: who has seen the whole response may
        # look at the metrics of another worker, or kill this one, before the next line of Python runs here.
        kind = message["type"]
        if kind == "http.response.start":
            self.started = perf_counter()
            self.status = message["status"]
        elif kind == "http.response.body":
            try:  # noqa: SIM105 - suppress() would cost more than the rest of this method
                self.sent += len(message["body"])
            except (KeyError, TypeError):  # there is none, which is as good as an empty one
                pass
            if self.open and not ("more_body" in message and message["more_body"]):  # noqa: RUF019 - half of get()
                self.finish()
        elif kind == "http.response.pathsend":
            self.sent += self.middleware.size_of(message["path"])
            if self.open:
                self.finish()
        return self.server_send(message)

    def fail(self, error: BaseException) -> None:
        """An exception passes through; it will be a 500 unless the client is the reason."""
        left = self.gone or isinstance(error, ClientDisconnect | CancelledError | GeneratorExit)
        left = left or (isinstance(error, OSError) and _passed(error.__traceback__, self.server_send))
        try:
            if isinstance(error, Exception) and not left:
                self.middleware.count_exception(self.middleware.row(self.scope, 500), error)
        except Exception:
            self.middleware.warn("an exception was not counted", exc_info=True)
        if self.open:
            self.gone, self.status = left, 500
            self.finish()

    @_locked
    def finish(self) -> None:
        """Count it. Never raises."""
        now = perf_counter()
        began, self.open = self.open, 0.0
        status = CLIENT_GONE if self.gone else self.status
        middleware = self.middleware
        try:
            scope = self.scope
            method = scope["method"]
            try:
                row = middleware.found[id(scope["route"])][method]
            except KeyError:
                row = middleware.row(scope, status)
            cells = storage.cells
            try:
                del middleware.waiting[self]
            except KeyError:
                cells[middleware.shown.pop(self)] -= 1.0
            try:
                cell = row.statuses[status]
            except KeyError:
                cell = middleware.status_cell(row, status)
            cells[cell] += 1.0

            start_sum, start, duration_sum, duration, received_sum, received, sent_sum, sent = row.cells
            started, bounds = self.started, middleware.bounds
            bucket = 0  # most requests are so short that one look at the first bound is enough
            if started or status != CLIENT_GONE:
                elapsed = (started or now) - began
                if elapsed > bounds[0]:
                    bucket = bisect_left(bounds, elapsed)
                    start += bucket
                cells[start_sum] += elapsed
                cells[start] += 1.0
            elapsed = now - began
            if elapsed > bounds[bucket]:
                bucket = bisect_left(bounds, elapsed)
            if bucket:
                duration += bucket
            cells[duration_sum] += elapsed
            cells[duration] += 1.0

            size = self.received
            if size:
                cells[received_sum] += size
                received += bisect_left(SIZE_BUCKETS, size)
            cells[received] += 1.0
            size = self.sent
            if size and method != "HEAD":  # whose body the server does not send
                cells[sent_sum] += size
                if size > SMALL:
                    sent += bisect_left(SIZE_BUCKETS, size)
            cells[sent] += 1.0

            if middleware.exemplar is not None:
                middleware.exemplify(scope, cell, duration, elapsed, now)
        except Exception:
            middleware.warn("a request was not counted", exc_info=True)


def _passed(traceback: TracebackType | None, function: Callable[..., Any]) -> bool:
    """Whether an exception came through a function, here the server's send()."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            return True
        traceback = traceback.tb_next
    return False


def _routes_of(app: Any) -> Sequence[Any]:
    """The routes of an application, seen through the middlewares around it."""
    while not hasattr(app, "routes") and hasattr(app, "app"):
        app = app.app
    return getattr(app, "routes", None) or ()


class _Template:
    """A route's full path, from the application's root."""

    def __init__(self, pattern: str, text: str | None, kept: Any) -> None:
        self.regex = re.compile(pattern)
        self.text = text  # None: a mount with routes of its own, none of which matched
        self.kept = kept  # objects known by their ids must not be replaced by others with the same ids


class _Templates:
    """From what the router leaves in the scope (`route`, `endpoint`) to the full template of the route.

    A table by identity, made from the application's routes once, and again when they change: a request costs the same
    with any number of routes. Where one route is reached by several ways (an application mounted twice, a router
    included twice), the path decides between these few.
    """

    def __init__(self, routes: Sequence[Any]) -> None:
        self._routes = routes
        self._make()

    def _make(self) -> None:
        self._all: list[_Template] = []
        self._by_id: dict[int, list[_Template]] = {}
        self._add(self._routes, "", "", 0)
        self._made = perf_counter()

    def of(self, scope: Scope, status: int) -> tuple[str | None, bool]:
        """The template, None where no route matched, and whether the scope's route alone says that it is this one."""
        route, endpoint = scope.get("route"), scope.get("endpoint")
        if route is None and endpoint is None:
            # The router has seen it, and there is no such route; or another middleware answered, or a slash is missing.
            searched = "router" in scope and status not in (307, 308)
            return (None if searched else self._match(scope, self._all)), False
        if id(endpoint if route is None else route) not in self._by_id and perf_counter() - self._made > 1:
            self._make()  # a router included in another one has grown
        by_route, by_endpoint = self._by_id.get(id(route), []), self._by_id.get(id(endpoint), [])
        # FastAPI sets `route` for its own routes only: it may still be the mount above a plain Starlette route.
        templates = [template for template in by_route if template in by_endpoint] or by_endpoint or by_route
        if not templates or (route is not None and not by_route):
            return getattr(route, "path_format", None), False
        texts = {template.text for template in templates}
        if len(texts) == 1 and templates[0].text is not None:
            return templates[0].text, texts == {template.text for template in by_route or by_endpoint}
        return self._match(scope, [t for t in templates if t.text is not None] or self._all), False

    def _match(self, scope: Scope, templates: Iterable[_Template]) -> str | None:
        path = scope["path"]
        paths = [path]
        for prefix in (scope.get("root_path"), scope.get("app_root_path")):
            if prefix and path.startswith(prefix):
                paths.insert(0, path[len(prefix) :])
        templates = list(templates)
        for redirected in (False, True):
            for candidate in paths:
                if redirected:
                    candidate = candidate[:-1] if candidate.endswith("/") else candidate + "/"
                for template in templates:
                    if template.text is not None and template.regex.fullmatch(candidate):
                        return template.text
        return None

    def _add(self, routes: Sequence[Any], pattern: str, text: str, depth: int) -> None:
        if depth > 16:  # an application mounted in itself
            return
        for route in iter_route_contexts(routes):
            inner = getattr(route, "routes", None)
            if inner is not None:
                inner = inner or _routes_of(getattr(route, "app", None))
            path = getattr(route, "path", None)
            if path is None and getattr(route, "host", None) is None:
                continue
            path = path or ""
            whole_pattern, whole_text = pattern + _pattern(path), text + PARAM_REGEX.sub(r"{\1}", path)
            endpoint = getattr(route, "endpoint", None) if inner is None else getattr(route, "app", None)
            if inner:
                self._add(inner, whole_pattern, whole_text, depth + 1)
                template = _Template(f"{whole_pattern}/.*", None, (route, endpoint))
            elif inner is not None:  # a mounted application without routes, such as static files
                template = _Template(f"{whole_pattern}/.*", f"{whole_text}/{{path}}", (route, endpoint))
            else:
                template = _Template(whole_pattern, whole_text, (route, endpoint))
            self._all.append(template)
            known = (
                route,
                endpoint,
                getattr(route, "route", None),
                getattr(route, "original_route", None),
                getattr(getattr(route, "_route_context", None), "starlette_route", None),
            )
            for key in {id(part) for part in known if part is not None}:
                self._by_id.setdefault(key, []).append(template)


def _pattern(path: str) -> str:
    """A regular expression for a path with parameters, like `/items/{item_id:int}`."""
    parts, end = [], 0
    for match in PARAM_REGEX.finditer(path):
        convertor = CONVERTOR_TYPES[(match[2] or ":str").removeprefix(":")]
        parts += [re.escape(path[end : match.start()]), f"(?:{convertor.regex})"]
        end = match.end()
    return "".join(parts) + re.escape(path[end:])


# /metrics


def metrics_endpoint(
    *, registry: CollectorRegistry = REGISTRY, token_file: str | os.PathLike[str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """The handler of GET /metrics: `app.add_route("/metrics", metrics_endpoint(), include_in_schema=False)`.

    Text or OpenMetrics as the Accept header asks, gzip, and `?name[]=` to pick metrics. With `token_file`, only
    requests that bear the token in this file are answered; the file is read again when it changes. A scrape works in
    slices of two milliseconds, and requests go on in between; custom collectors work in a thread, where there is no
    event loop. Scrapes that come together share one text.
    """
    token = None if token_file is None else _Token(Path(token_file))
    scraper = _Scraper(registry)

    async def metrics(request: Request) -> Response:
        if token is not None:
            refusal = token.refusal(request.headers.get("authorization", ""))
            if refusal is not None:
                return refusal
        return await scraper.scrape(
            request.headers.get("accept", ""),
            frozenset(request.query_params.getlist("name[]")),
            gzip_accepted(request.headers.get("accept-encoding", "")),
        )

    return metrics


class _Token:
    """The bearer token in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = b""

    def refusal(self, authorization: str) -> Response | None:
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen != self._seen:
                self._token, self._seen = self._path.read_bytes().strip(), seen
        except OSError as error:
            log.error("/metrics: cannot read the token file: %s", error)
            self._token, self._seen = b"", None
        if not self._token:
            return PlainTextResponse("The token file of /metrics is missing or empty.\n", status_code=503)
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() == "bearer" and same:
            return None
        return PlainTextResponse("A bearer token is needed.\n", 401, {"www-authenticate": "Bearer"})


class _Scraper:
    """Renders one scrape at a time; one that waited takes the text of another that began after it came."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = anyio.Lock()
        self._thread: anyio.CapacityLimiter | None = None  # of our own, none that handlers wait for
        self._queue = 0
        self._last: tuple[tuple[str, frozenset[str], bool], float, Response] | None = None

    async def scrape(self, accept: str, names: frozenset[str], gzip: bool) -> Response:
        if self._queue >= _MAX_SCRAPES:
            return PlainTextResponse("Too many scrapes at once.\n", 503, {"retry-after": "1"})
        came = perf_counter()
        self._queue += 1
        try:
            async with self._lock:
                key = accept, names, gzip
                if self._last is None or self._last[0] != key or self._last[1] < came:
                    began = perf_counter()
                    self._last = key, began, await self._render(*key)
                return self._last[2]
        finally:
            self._queue -= 1
            if not self._queue:
                self._last = None  # nobody needs it any more, and it may be large

    async def _render(self, accept: str, names: frozenset[str], gzip: bool) -> Response:
        if self._thread is None:
            self._thread = anyio.CapacityLimiter(1)  # older versions of anyio make it in an event loop only
        content_type, text = pieces(self._registry, accept, names)
        headers = {"content-type": content_type, "vary": "accept, accept-encoding", "cache-control": "no-store"}
        deflate = None
        if gzip:
            headers["content-encoding"] = "gzip"
            deflate = zlib.compressobj(1, wbits=31)

        def packed(piece: Piece) -> bytes:
            data = (piece if isinstance(piece, str) else piece()).encode()
            return data if deflate is None else deflate.compress(data)

        body = []
        paused = perf_counter()
        for piece in text:
            if isinstance(piece, str):
                body.append(packed(piece))
            else:
                body.append(await anyio.to_thread.run_sync(packed, piece, limiter=self._thread))
            if perf_counter() - paused > _SLICE:
                await anyio.lowlevel.checkpoint()
                paused = perf_counter()
        if deflate is not None:
            body.append(deflate.flush())
        return _PiecesResponse([part for part in body if part], headers)


class _PiecesResponse(Response):
    """A body in pieces, of known length."""

    def __init__(self, body: list[bytes], headers: dict[str, str]) -> None:
        self._pieces = body
        super().__init__(headers={**headers, "content-length": str(sum(map(len, body)))})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        paused = perf_counter()
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if perf_counter() - paused > _SLICE:
                await anyio.lowlevel.checkpoint()
                paused = perf_counter()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
