# SPDX-License-Identifier: Apache-2.0
"""The series of one middleware: where in the storage each method, route and status is counted.

    rows["GET", "/items/{item_id}"] -> Row: cells of the histograms, of each status, each exception, and the gauge
    found[id(route)]["GET"]         -> the same row, for all requests except the first of a route

The gauge of requests in progress is set late, because the template is known only after the router has run. In a single
process it is set when the storage is read. Other workers may read it at any time, but a request matters to them only
once its handler awaits something: so the gauge is set in the next iteration of the event loop, if there is one.
"""

import logging
import platform
from asyncio import get_running_loop
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from ..storage import SCRATCH, Family, locked, storage
from .metrics import (
    APP_INFO,
    DURATION,
    EXCEPTIONS,
    FAILED_DURATION,
    FAILED_START,
    IN_PROGRESS,
    METHODS,
    OTHER,
    OVERFLOW,
    OVERFLOWED,
    REQUEST_SIZE,
    REQUESTS,
    RESPONSE_SIZE,
    START,
)
from .routes import Templates

if TYPE_CHECKING:
    from .exchange import Exchange

log = logging.getLogger("sightline_telemetry")

ExemplarLabels = Callable[[Scope], Mapping[str, str] | None]

_EXEMPLAR_SECONDS = 1.0  # minimum age before it is replaced: writing one costs twice as much as counting the request


class Row:
    """The cells of one method and route template."""

    __slots__ = ("cells", "exceptions", "failed_duration", "failed_start", "in_progress", "labels", "statuses")

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.statuses: dict[int, int] = {}
        self.exceptions: dict[str, int] | None = None  # None until the first one, for most rows forever
        self.in_progress = SCRATCH
        self.failed_start = self.failed_duration = 0  # the cells of the sums, after the first failure
        self.cells: tuple[int, ...] = (SCRATCH,) * 8  # two histograms: sum, first bucket; two summaries: count, sum


class Series:
    """See the options of PrometheusMiddleware."""

    def __init__(
        self,
        *,
        buckets: Sequence[float],
        const_labels: Mapping[str, str],
        max_series: int,
        unmatched_endpoint: str,
        exemplar: ExemplarLabels | None,
    ) -> None:
        self.bounds = [*buckets, float("inf")]
        self.exemplar = exemplar
        self.found: dict[int, dict[str, Row]] = {}  # by the id of the scope's route, and by method
        self.waiting: dict[Exchange, None] = {}  # requests that are not yet counted as in progress
        self.shown: dict[Exchange, int] = {}  # requests that are, with the gauge's cell
        self._kept: list[Any] = []  # the routes of `found`, kept alive so that no other object gets the same id
        self._templates = Templates(())
        self._rows: dict[tuple[str, str], Row] = {}  # by method and endpoint
        self._max = max_series
        self._count = 0
        self._unmatched = unmatched_endpoint
        self._exemplar_due: dict[int, float] = {}  # by cell
        self._warned: set[str] = set()

        self.constant = tuple(const_labels.values())
        names = ("method", "endpoint", *const_labels)
        self._requests = REQUESTS.family(("method", "endpoint", "status_code", *const_labels))
        self._families = (
            START.family(names, buckets),
            DURATION.family(names, buckets),
            REQUEST_SIZE.family(names),
            RESPONSE_SIZE.family(names),
        )
        self._failed = FAILED_START.family(names, buckets), FAILED_DURATION.family(names, buckets)
        self._in_progress = IN_PROGRESS.family(names, mode="livesum")
        self._exceptions = EXCEPTIONS.family(("method", "endpoint", "exception", *const_labels))
        self._info = APP_INFO.family(("version", "python", *const_labels), mode="livemax")
        self._overflowed = self.cell(OVERFLOWED.family(tuple(const_labels)), self.constant)
        self._overflow = Row((OTHER, OVERFLOW, *self.constant))  # its `statuses` stay empty
        self._overflow_statuses: dict[int, int] = {}
        storage.on_read(self.show)

    def learn(self, routes: Sequence[Any], app: Any) -> None:
        """Use these routes, at first and whenever they have changed."""
        self._templates = Templates(routes, app)
        self.found.clear()
        self._kept.clear()

    def set_info(self, version: str) -> None:
        cell = self.cell(self._info, (version, platform.python_version(), *self.constant))
        storage.cells[cell] = 1.0

    # In progress

    def show_soon(self) -> None:
        try:
            get_running_loop().call_soon(self.show)
        except RuntimeError:  # not asyncio: set the gauge now, by the path
            self.show()

    @locked
    def show(self) -> None:
        """Count the waiting requests as in progress."""
        try:
            for exchange in list(self.waiting):
                self.shown[exchange] = cell = self.row(exchange.scope, 0).in_progress
                # Whoever removes it from `waiting` decides: if it finishes (in another thread) now, it is not counted.
                if self.waiting.pop(exchange, 0) is None:
                    storage.cells[cell] += 1.0
                else:
                    self.shown.pop(exchange, None)
        except Exception:
            self.warn("a request was not counted as in progress", exc_info=True)

    # Rows

    def row(self, scope: Scope, status: int) -> Row:
        """The row of a request: its method and the template of its route."""
        route = scope.get("route", scope.get("endpoint"))  # older versions of Starlette set only the endpoint
        found = self.found.get(id(route))
        if found is not None and scope["method"] in found:
            return found[scope["method"]]
        method = scope["method"] if scope["method"] in METHODS else OTHER
        name, fixed = self.endpoint(scope, status)
        row = self._rows.get((method, name))
        if row is None:
            if self.room(6):
                row = self._rows[method, name] = Row((method, name, *self.constant))
                self._fill(row)
                # Start at 0, or rate() would miss the first failure of an endpoint.
                row.statuses[500] = self.cell(self._requests, (method, name, "500", *self.constant))
            else:
                row = self._overflow
        if fixed and method is not OTHER and row is not self._overflow:
            self.found.setdefault(id(route), {})[method] = row
            self._kept.append(route)
        return row

    def endpoint(self, scope: Scope, status: int) -> tuple[str, bool]:
        """The label, and whether the scope's route alone determines it (not the path)."""
        template, fixed = self._templates.of(scope, status)
        return self._unmatched if template is None else template, fixed

    def room(self, combinations: int = 1) -> bool:
        """Whether the limit allows this many more."""
        if self._count + combinations <= self._max:
            self._count += combinations
            return True
        self.warn(f"more than {self._max} label combinations; new ones are counted as endpoint={OVERFLOW!r}")
        if self._overflow.in_progress == SCRATCH:
            self._fill(self._overflow)
        return False

    def _fill(self, row: Row) -> None:
        row.in_progress = self.cell(self._in_progress, row.labels)
        starts = [self.cell(family, row.labels) for family in self._families]
        row.cells = tuple(cell for first in starts for cell in (first, first + 1))

    def cell(self, family: Family, labelvalues: tuple[str, ...]) -> int:
        start = storage.own(family, labelvalues, alone=False)
        return SCRATCH if start is None else start + 1

    def status_cell(self, row: Row, status: int) -> int:
        """The counter of a status in a row."""
        known = row.statuses
        if row is self._overflow or not self.room():
            row, known = self._overflow, self._overflow_statuses
        cell = known.get(status)
        if cell is None:
            name = str(status) if 100 <= status <= 599 else "other"
            cell = known[status] = self.cell(self._requests, (*row.labels[:2], name, *self.constant))
        if row is self._overflow:
            storage.cells[self._overflowed] += 1.0
        return cell

    def count_failure(self, row: Row, start: float, duration: float) -> None:
        """Count a failed request in the histograms of failures, which a row gets with its first failure."""
        if not row.failed_duration:
            if row is not self._overflow and not self.room(2):
                self.count_failure(self._overflow, start, duration)
                return
            row.failed_start, row.failed_duration = (self.cell(family, row.labels) for family in self._failed)
        for cell, seconds in ((row.failed_start, start), (row.failed_duration, duration)):
            if cell != SCRATCH:
                storage.cells[cell] += seconds
                storage.cells[cell + 1 + bisect_left(self.bounds, seconds)] += 1.0

    @locked
    def count_exception(self, row: Row, name: str) -> None:
        if name not in (row.exceptions or ()) and (row is self._overflow or not self.room()):
            row, name = self._overflow, OVERFLOW
        if row.exceptions is None:
            row.exceptions = {}
        cell = row.exceptions.get(name)
        if cell is None:
            cell = self.cell(self._exceptions, (*row.labels[:2], name, *self.constant))
            row.exceptions[name] = cell
        storage.cells[cell] += 1.0

    def keep_exemplar(self, scope: Scope, cell: int, bucket: int, elapsed: float, now: float) -> None:
        """Store the request as the exemplar of its counter and its bucket, if the previous one is old enough."""
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
            self.warn("an exemplar was not stored", exc_info=True)

    def warn(self, message: str, *, exc_info: bool = False) -> None:
        """Log it once."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning("HTTP metrics: %s", message, exc_info=exc_info)
