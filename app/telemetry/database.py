"""Prometheus metrics of a SQLAlchemy engine, as the application sees it: queries, transactions, connection pool.

Depends on prometheus_client and SQLAlchemy 2 alone and may be copied alone. One line per engine, sync or async:

    instrument_engine(engine, pool="main", query_names=("list_items",))

    session.execute(select(Item), execution_options={"query_name": "list_items"})   # optional, for a query of its own

Labels come from fixed lists: `pool` is the name given here, `query_name` one of those allowed here and `other` for all
else, `operation` one of OPERATIONS, `sqlstate_class` one of SQLSTATE_CLASSES. Nothing of a statement, its parameters or
its results becomes a label. Times are in seconds of the monotonic clock. Nothing here ever raises into a query.

What counts as what:
- A query is one execution of a cursor: an `executemany`, or one batch of an ORM bulk insert, is one. Failed ones are
  timed too. Rows that a server-side cursor fetches later are not part of the time.
- A transaction is one that reached the database: `begin` without a statement is none; every statement of an AUTOCOMMIT
  connection is one. A session that only read and then closed is a `rollback`, for SQLAlchemy as for PostgreSQL, so a
  high share of rollbacks is no fault in itself. COMMIT of a transaction that PostgreSQL aborted is a `rollback` too.
- PostgreSQL counts the same (`commit_failed` as rollback), and beyond that a commit per new connection, pre-ping and
  second phase of a two-phase commit, a rollback per engine (SQLAlchemy's look at the server), a commit where psycopg
  drops its prepared statements after a rollback, and what other clients and its own workers do.
- DBAPI connections taken with `engine.raw_connection()` are in the pool's metrics; their statements are not seen, and
  neither are those that a `do_execute` listener answers in the driver's place.

Nothing listens to the engine itself: with a single listener, whichever, SQLAlchemy prepares the arguments of all its
events at every statement, which costs more than everything here. Statements and the ends of transactions are seen where
this engine's dialect hands them to the driver (`do_execute`, `do_commit`...), by functions put around those.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import threading
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Final, ParamSpec

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Engine, event, exc
from sqlalchemy.ext.asyncio import AsyncEngine

P = ParamSpec("P")

OPERATIONS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "CALL", "DDL", "SAVEPOINT", "OTHER")
ERROR_OPERATIONS: Final = (*OPERATIONS, "CONNECT", "COMMIT", "ROLLBACK")
# https://www.postgresql.org/docs/current/errcodes-appendix.html; the standard's classes are the same everywhere.
# fmt: off
SQLSTATE_CLASSES: Final = frozenset((
    "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26", "27",
    "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58", "72",
    "F0", "HV", "P0", "XX", "other",
))
# fmt: on
# connection, data, integrity, transaction rollback, syntax or access, resources, object state, operator intervention
COMMON_SQLSTATE_CLASSES: Final = ("08", "22", "23", "40", "42", "53", "55", "57", "other")
OUTCOMES: Final = ("commit", "rollback", "commit_failed")
INVALIDATIONS: Final = ("error", "ping", "cancelled", "manual", "soft")
OTHER: Final = "other"

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUERY_DURATION = Histogram(
    "db_query_duration_seconds",
    "Time from sending a statement until its result is ready, failed statements included",
    ("pool", "operation", "query_name"),
    buckets=BUCKETS,
)
QUERY_ERRORS = Counter(
    "db_query_errors",
    "Errors of the database or its driver by SQLSTATE class (08 connection, 23 integrity, 40 deadlock...)",
    ("pool", "operation", "sqlstate_class"),
)
TRANSACTIONS = Counter(
    "db_transactions",
    "Transactions that ended; read-only sessions that close are rollbacks",
    ("pool", "outcome"),
)
COMMIT_DURATION = Histogram("db_commit_duration_seconds", "Time of a COMMIT", ("pool",), buckets=BUCKETS)
POOL_CONNECTIONS = Gauge(
    "db_pool_connections", "Open connections of the pool", ("pool", "state"), multiprocess_mode="livesum"
)
POOL_CONNECTIONS_MAX = Gauge(
    "db_pool_connections_max",
    "Most connections the pool may open: size and overflow; +Inf without a limit",
    ("pool",),
    multiprocess_mode="livesum",
)
POOL_OVERFLOW = Gauge(
    "db_pool_overflow", "Open connections beyond the pool's size", ("pool",), multiprocess_mode="livesum"
)
POOL_WAIT = Histogram(
    "db_pool_checkout_wait_seconds",
    "Time a caller waited for a connection to become free, without connecting and pinging",
    ("pool",),
    buckets=(0.00005, 0.0001, 0.00025, *BUCKETS),  # where one is free, that takes less than 0.1 ms
)
POOL_USE = Histogram(
    "db_pool_connection_use_seconds",
    "Time a connection was out of the pool",
    ("pool",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
POOL_PENDING = Gauge(
    "db_pool_pending_checkouts", "Callers that want a connection and have none", ("pool",), multiprocess_mode="livesum"
)
POOL_TIMEOUTS = Counter("db_pool_checkout_timeouts", "Checkouts given up because no connection became free", ("pool",))
POOL_INVALIDATIONS = Counter("db_pool_invalidations", "Connections thrown away before their time", ("pool", "kind"))

_log = logging.getLogger(__name__)


def instrument_engine(
    engine: Engine | AsyncEngine, pool: str = "main", query_names: Iterable[str] = ()
) -> Instrumentation:
    """Measure everything that goes through `engine`, from now on and also after `engine.dispose()`.

    Give every engine of a process a `pool` name of its own; engines of one name are added up. A second call for the
    same engine returns the same handle and may allow more `query_names`. Raises ValueError for another `pool` name,
    TypeError for what is no engine and for a single name where a list belongs.
    """
    root = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    root = getattr(root, "_proxied", root)  # engine.execution_options() makes a view of the engine that owns the pool
    if not isinstance(root, Engine):
        raise TypeError(f"expected SQLAlchemy's Engine or AsyncEngine, not a {type(engine).__name__}")
    _no_string(query_names)
    handle = _handles.get(id(root))
    if handle is None or not handle.watches(root):
        handle = _handles[id(root)] = Instrumentation(root, _pool_metrics(pool))
    elif handle.pool != pool:
        raise ValueError(f"this engine is instrumented as pool {handle.pool!r} already, not {pool!r}")
    handle.allow(query_names)
    return handle


def _no_string(query_names: Iterable[str]) -> None:
    """Its letters would be the names."""
    if isinstance(query_names, str):
        raise TypeError(f"query_names is a list of names: ({query_names!r},)")


# Operation ------------------------------------------------------------------------------------------------------------

_KEYWORDS: Final = {
    **{word: word for word in ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "CALL", "SAVEPOINT")},
    **dict.fromkeys(("VALUES", "TABLE"), "SELECT"),
    **dict.fromkeys(("CREATE", "ALTER", "DROP", "TRUNCATE", "COMMENT", "GRANT", "REVOKE"), "DDL"),
    "RELEASE": "SAVEPOINT",
}
_AFTER_WITH: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE"})
_FIRST_WORD: Final = re.compile(r"[\s(]*([A-Za-z]+)")
_ROLLBACK_TO: Final = re.compile(r"\s*ROLLBACK\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b", re.IGNORECASE)
_TOKEN: Final = re.compile(r"--|/\*|\*/|\$(?:[A-Za-z_]\w*)?\$|[Ee]'|['\"`(),]|[A-Za-z_][\w$]*")
_ESCAPED_END: Final = re.compile(r"(?:[^'\\]|\\.)*'", re.DOTALL)
_SCAN_LIMIT: Final = 20_000  # characters; a statement whose kind is not known by then is OTHER
_CACHE_LIMIT: Final = 512  # statements whose kind is remembered, per query name
_CACHED_LENGTH: Final = 4_000  # characters


def operation_of(statement: str) -> str:
    """The kind of a statement, one of OPERATIONS, from its first keyword after comments, parentheses and CTEs."""
    first = _FIRST_WORD.match(statement)
    word = first[1].upper() if first else "WITH"
    if word == "ROLLBACK":  # ROLLBACK TO [SAVEPOINT] name, or a whole transaction's
        return "SAVEPOINT" if _ROLLBACK_TO.match(statement) else "OTHER"
    if word != "WITH":
        return _KEYWORDS.get(word, "OTHER")
    return _KEYWORDS.get(_main_keyword(statement[:_SCAN_LIMIT]), "OTHER")


def _main_keyword(sql: str) -> str:
    """The first word of a statement, or where that is WITH, the keyword after its CTEs. Linear in the text's length."""
    depth = with_depth = position = 0
    names_follow = False  # what comes after WITH, RECURSIVE and a comma is a name, even if it reads like a keyword
    inside_with = False
    while token := _TOKEN.search(sql, position):
        text, position = token[0], token.end()
        if text == "--":
            position = sql.find("\n", position)
        elif text == "/*":
            position = _comment_end(sql, position)
        elif text in {"'", '"', "`"}:
            position = sql.find(text, position) + 1 or -1
            names_follow = False
        elif text in {"E'", "e'"}:
            end = _ESCAPED_END.match(sql, position)
            position = end.end() if end else -1
        elif text[0] == "$":
            position = sql.find(text, position) + len(text) if text in sql[position:] else -1
        elif text in {"(", ")"}:
            depth += 1 if text == "(" else -1
        elif text == ",":
            names_follow = depth == with_depth
        elif text != "*/":
            word = text.upper()
            if not inside_with:
                if word != "WITH":
                    return word
                inside_with, with_depth, names_follow = True, depth, True
            elif depth == with_depth:
                if not names_follow and word in _AFTER_WITH:
                    return word
                names_follow = names_follow and word == "RECURSIVE"
        if position < 0:
            break
    return ""


def _comment_end(sql: str, position: int) -> int:
    """The end of a block comment, which may hold others (PostgreSQL); -1 where it has none."""
    depth = 1
    while depth:
        opening, closing = sql.find("/*", position), sql.find("*/", position)
        if closing < 0:
            return -1
        nested = 0 <= opening < closing
        depth += 1 if nested else -1
        position = (opening if nested else closing) + 2
    return position


# Bookkeeping ----------------------------------------------------------------------------------------------------------


# What a connection is in the middle of: nothing; a transaction that has reached the server; a statement that is a
# transaction of its own; what ends a two-phase transaction, of which the dialect may make several statements.
IDLE: Final = "idle"
ACTIVE: Final = "active"
AUTOCOMMIT: Final = "autocommit"
ENDING: Final = "ending"


class _Slot:
    """One DBAPI connection, kept in its `info`."""

    __slots__ = ("ending", "failed", "generation", "phase", "since", "state")

    def __init__(self, generation: int) -> None:
        self.generation = generation  # of the pool; dispose() makes a new one
        self.state = "new"  # new, used, idle, gone
        self.since = 0.0
        self.phase = IDLE
        self.failed = False  # the server refused a statement since the last savepoint: PostgreSQL can only roll back
        self.ending = "OTHER"  # COMMIT or ROLLBACK from when that is sent until the next transaction


class _Checkout:
    """One call of pool.connect()."""

    __slots__ = ("busy", "connecting", "started")

    def __init__(self) -> None:
        self.started: float | None = None
        self.connecting: float | None = None  # since when
        self.busy = 0.0  # seconds spent connecting and pinging, which is not waiting


class _Counts:
    """The open connections of one engine."""

    __slots__ = ("__weakref__", "idle", "limit", "size", "used")

    def __init__(self) -> None:
        self.used = self.idle = 0
        self.size = self.limit = 0.0


_checkout: ContextVar[_Checkout | None] = ContextVar("sightline_checkout", default=None)


Number = Callable[[float], None]


def _observer(histogram: Any) -> Number:
    """The observe() of a histogram's child at two thirds of its price."""
    add, buckets, bounds = histogram._sum.inc, [bucket.inc for bucket in histogram._buckets], histogram._upper_bounds

    def observe(seconds: float) -> None:
        add(seconds)
        buckets[bisect_left(bounds, seconds)](1)

    return observe


def _value(child: Any) -> Any:
    """The number under a gauge's child: half the price of its own inc() and set()."""
    return child._value


class _PoolMetrics:
    """The children of one pool's metrics, looked up once."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.durations: dict[tuple[str, str], Number] = {}
        for operation in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            self.duration(operation, OTHER)
        for operation in ("SELECT", "INSERT", "UPDATE", "DELETE", "OTHER", "CONNECT", "COMMIT"):
            for sqlstate_class in COMMON_SQLSTATE_CLASSES:  # from 0, or increase() would miss the first error
                QUERY_ERRORS.labels(pool, operation, sqlstate_class)
        self.commits, self.rollbacks, self.commits_failed = (TRANSACTIONS.labels(pool, name) for name in OUTCOMES)
        self.commit_duration = _observer(COMMIT_DURATION.labels(pool))
        self.wait = _observer(POOL_WAIT.labels(pool))
        self.use = _observer(POOL_USE.labels(pool))
        self.pending: Number = _value(POOL_PENDING.labels(pool)).inc
        self.timeouts = POOL_TIMEOUTS.labels(pool)
        self.invalidations = {kind: POOL_INVALIDATIONS.labels(pool, kind) for kind in INVALIDATIONS}
        self._used, self._idle = (_value(POOL_CONNECTIONS.labels(pool, state)) for state in ("used", "idle"))
        self._max = _value(POOL_CONNECTIONS_MAX.labels(pool))
        self._overflow = _value(POOL_OVERFLOW.labels(pool))
        self._engines: list[weakref.ref[_Counts]] = []
        self._moves: deque[Callable[[], None]] = deque()
        self._settling = threading.Lock()

    def duration(self, operation: str, query_name: str) -> Number:
        observe = self.durations.get((operation, query_name))
        if observe is None:
            observe = _observer(QUERY_DURATION.labels(self.pool, operation, query_name))
            self.durations[operation, query_name] = observe
        return observe

    def error(self, operation: str, sqlstate_class: str) -> None:
        QUERY_ERRORS.labels(self.pool, operation, sqlstate_class).inc()

    def add(self, counts: _Counts) -> None:
        self.change(lambda: self._engines.append(weakref.ref(counts)))

    def remove(self, counts: _Counts) -> None:
        def leave_out() -> None:
            self._engines = [engine for engine in self._engines if engine() not in (None, counts)]

        self.change(leave_out)

    def change(self, move: Callable[[], None]) -> None:
        """Apply a change of the counts and publish them.

        The garbage collector may return a forgotten connection to its pool at any moment, also while this very thread
        is in here: nobody ever waits for the lock, whoever has it does the others' work.
        """
        self._moves.append(move)
        while self._moves and self._settling.acquire(blocking=False):
            try:
                try:
                    while self._moves:
                        self._moves.popleft()()
                finally:
                    self._publish()
            finally:
                self._settling.release()

    def _publish(self) -> None:
        used = idle = limit = overflow = 0.0
        for engine in self._engines:
            counts = engine()
            if counts is not None:  # else the engine is gone
                used += counts.used
                idle += counts.idle
                limit += counts.limit
                if counts.used + counts.idle > counts.size:
                    overflow += counts.used + counts.idle - counts.size
        self._used.set(used)
        self._idle.set(idle)
        self._max.set(limit)  # each time: a forked worker's gauges begin at 0
        self._overflow.set(overflow)


_pools: dict[str, _PoolMetrics] = {}
_handles: weakref.WeakValueDictionary[int, Instrumentation] = weakref.WeakValueDictionary()


def _pool_metrics(pool: str) -> _PoolMetrics:
    if pool not in _pools:
        _pools[pool] = _PoolMetrics(pool)
    return _pools[pool]


_said: set[str] = set()


def _say(what: str) -> None:
    """A fault of the measurement, once."""
    if what not in _said:
        _said.add(what)
        _log.warning("Database telemetry: %s failed; said once", what, exc_info=True)


def _harmless(function: Callable[P, None]) -> Callable[P, None]:
    """Keep a fault of the measurement away from what is measured."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            _say(function.__name__)

    return call


# Instrumentation ------------------------------------------------------------------------------------------------------


class Instrumentation:
    """The handle of one instrumented engine."""

    def __init__(self, engine: Engine, metrics: _PoolMetrics) -> None:
        self.pool = metrics.pool
        self._metrics = metrics
        self._engine = engine
        self._dialect: Any = engine.dialect
        self._first_pool = engine.pool  # the key of the pool's listeners, which move on to its successors
        self._key = object()  # of the slots; a later instrumentation of the engine has its own
        # By query name, None where a statement has none, and by statement: how to observe its duration.
        self._observers: dict[str | None, dict[str, Number]] = {None: {}}
        self._counts = _Counts()
        self._generation = 0
        self._wrapped: list[tuple[Any, str, Any, Any]] = []  # whose, name, by what, and somebody else's before
        self._listeners: list[tuple[Any, str, Callable[..., Any]]] = []
        metrics.add(self._counts)
        self._measure_pool()
        self._wrap(engine, "dispose", self._dispose)
        for name in ("do_execute", "do_executemany"):
            self._put(self._dialect, name, self._measured(getattr(self._dialect, name)))
        name = "do_execute_no_params"
        self._put(self._dialect, name, self._measured_without_parameters(getattr(self._dialect, name)))
        for name in (
            "do_commit",
            "do_rollback",
            "do_rollback_to_savepoint",
            "do_prepare_twophase",
            "do_commit_twophase",
            "do_rollback_twophase",
            "do_ping",
        ):
            self._wrap(self._dialect, name, getattr(self, f"_{name}"))
        for name in ("connect", "checkout", "checkin", "close", "detach", "invalidate", "soft_invalidate"):
            self._listen(self._first_pool, name)
        for name in ("do_connect", "handle_error"):
            self._listen(self._dialect, name)

    def watches(self, engine: Engine) -> bool:
        return self._engine is engine

    def allow(self, query_names: Iterable[str]) -> None:
        """Allow more values of the label `query_name`."""
        _no_string(query_names)
        for name in query_names:
            self._observers.setdefault(name, {})

    def uninstrument(self) -> None:
        """Leave the engine as it was. Counters keep what they counted; the gauges forget this engine."""
        for target, name, listener in self._listeners:
            if event.contains(target, name, listener):
                event.remove(target, name, listener)
        self._listeners.clear()
        for target, name, wrapper, before in self._wrapped:
            if vars(target).get(name) is wrapper:
                if before is None:
                    delattr(target, name)  # the class has it
                else:
                    setattr(target, name, before)
        self._wrapped.clear()
        self._metrics.remove(self._counts)
        _handles.pop(id(self._engine), None)

    def _listen(self, target: Any, name: str) -> None:
        listener = getattr(self, f"_on_{name}")
        event.listen(target, name, listener)
        self._listeners.append((target, name, listener))

    def _wrap(self, target: Any, name: str, around: Callable[..., Any]) -> None:
        self._put(target, name, functools.partial(around, getattr(target, name)))

    def _put(self, target: Any, name: str, wrapper: Callable[..., Any]) -> None:
        self._wrapped.append((target, name, wrapper, vars(target).get(name)))
        setattr(target, name, wrapper)

    # Queries

    def _measured(self, execute: Callable[..., None]) -> Callable[..., None]:
        """Around `execute`. It runs for every query, so it calls nothing that it can do without."""
        key, observers, unnamed = self._key, self._observers, self._observers[None]

        def measured(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            try:
                slot = context._dbapi_connection.info[key]
                if slot.phase is not ACTIVE:
                    self._begin(slot, context)
            except Exception:
                slot = self._late_slot(context)
            if slot is None:
                execute(cursor, statement, parameters, context)
                return
            started = perf_counter()
            try:
                execute(cursor, statement, parameters, context)
            except BaseException:
                self._executed(slot, statement, context, perf_counter() - started, done=False)
                raise
            seconds = perf_counter() - started
            try:
                observe = observers.get(context.execution_options.get("query_name"), unnamed).get(statement)
            except Exception:
                observe = None
            if observe is None or slot.phase is AUTOCOMMIT:
                self._executed(slot, statement, context, seconds, done=True)
            else:
                observe(seconds)

        return measured

    def _measured_without_parameters(self, execute: Callable[..., None]) -> Callable[..., None]:
        measured = self._measured(lambda cursor, statement, parameters, context: execute(cursor, statement, context))
        return lambda cursor, statement, context=None: measured(cursor, statement, None, context)

    def _begin(self, slot: _Slot, context: Any) -> None:
        """A statement is about to be sent outside of a transaction that has reached the server."""
        if slot.phase is not ENDING:
            slot.phase = AUTOCOMMIT if self._is_autocommit(context.root_connection) else ACTIVE
            slot.failed = False
            slot.ending = "OTHER"

    def _is_autocommit(self, conn: Any) -> bool:
        level = conn.get_execution_options().get("isolation_level")
        if level is None:
            level = getattr(self._dialect, "_on_connect_isolation_level", None)  # create_engine(isolation_level=...)
        return str(level).upper() == "AUTOCOMMIT"

    def _late_slot(self, context: Any) -> _Slot | None:
        """Of a connection from before the engine was instrumented; None for SQLAlchemy's own look at a new server."""
        try:
            slot = self._slot(context._dbapi_connection)
            self._begin(slot, context)
        except NotImplementedError:  # that look has a connection without `info`
            return None
        except Exception:
            _say("do_execute")
            return None
        return slot

    @_harmless
    def _executed(self, slot: _Slot, statement: str, context: Any, seconds: float, done: bool) -> None:
        name = context.execution_options.get("query_name")
        if not isinstance(name, str) or name not in self._observers:
            name = None
        known = self._observers[name]
        observe = known.get(statement)
        if observe is None:
            observe = self._metrics.duration(operation_of(statement), OTHER if name is None else name)
            # The text of a bulk insert is a new one each time.
            if len(statement) <= _CACHED_LENGTH and not context.executemany:
                if len(known) >= _CACHE_LIMIT:
                    known.clear()
                known[statement] = observe
        observe(seconds)
        if slot.phase is AUTOCOMMIT:
            (self._metrics.commits if done else self._metrics.rollbacks).inc()

    @_harmless
    def _on_handle_error(self, context: Any) -> None:
        if context.is_pre_ping:
            return
        connection = context.connection
        slot = None if connection is None else self._slot_of(connection._dbapi_connection)
        # Fetching has no statement of its own.
        statement = context.statement or getattr(context.execution_context, "statement", None)
        sqlstate = _sqlstate(context.original_exception)
        if slot is not None and statement is not None and sqlstate is not None:
            slot.failed = True
        if slot is not None and slot.phase is ACTIVE and context.is_disconnect:
            self._rolled_back(slot)
        if not isinstance(context.sqlalchemy_exception, exc.DBAPIError):
            return  # not of the database or its driver: a cancelled task, a statement without its parameters
        if connection is None:
            operation = "CONNECT"
        elif statement is not None:
            operation = operation_of(statement)
        else:
            operation = "OTHER" if slot is None else slot.ending
        lost = connection is None or context.is_disconnect
        self._metrics.error(operation, _sqlstate_class(sqlstate, lost))

    # Transactions

    def _slot_of(self, connection: Any) -> _Slot | None:
        """Of a connection that is in use; None where no statement was seen on it."""
        try:
            return connection.info[self._key]  # type: ignore[no-any-return]
        except Exception:
            return None

    def _do_commit(self, do_commit: Callable[[Any], None], connection: Any) -> None:
        slot = self._slot_of(connection)
        if slot is not None:
            slot.ending = "COMMIT"
        if slot is None or slot.phase is not ACTIVE:  # nothing was sent, AUTOCOMMIT
            do_commit(connection)
        else:
            self._commit(slot, functools.partial(do_commit, connection))

    def _commit(self, slot: _Slot, commit: Callable[[], None]) -> None:
        done = False
        started = perf_counter()
        try:
            commit()
            done = True
        finally:
            self._committed(slot, done, perf_counter() - started)

    @_harmless
    def _committed(self, slot: _Slot, done: bool, seconds: float) -> None:
        failed, slot.phase, slot.failed = slot.failed, IDLE, False
        if not done:
            outcome = self._metrics.commits_failed
        elif failed and self._dialect.name == "postgresql":  # it answered ROLLBACK, which is no error
            outcome = self._metrics.rollbacks
        else:
            outcome = self._metrics.commits
        outcome.inc()
        self._metrics.commit_duration(seconds)

    def _do_rollback(self, do_rollback: Callable[[Any], None], connection: Any) -> None:
        slot = self._slot_of(connection)
        if slot is not None:
            slot.ending = "ROLLBACK"
            if slot.phase is ACTIVE:
                self._rolled_back(slot)
        do_rollback(connection)

    @_harmless
    def _rolled_back(self, slot: _Slot) -> None:
        slot.phase, slot.failed = IDLE, False
        self._metrics.rollbacks.inc()

    def _do_rollback_to_savepoint(self, do_rollback: Callable[..., None], conn: Any, name: str) -> None:
        slot = self._slot_of(conn._dbapi_connection)
        if slot is not None:
            slot.failed = False
        do_rollback(conn, name)

    def _do_prepare_twophase(self, do_prepare: Callable[..., None], conn: Any, xid: Any) -> None:
        do_prepare(conn, xid)
        slot = self._slot_of(conn._dbapi_connection)
        if slot is not None:
            slot.phase = IDLE  # the server keeps the transaction, whatever becomes of the connection

    def _do_commit_twophase(
        self, do_commit: Callable[..., None], conn: Any, xid: Any, is_prepared: bool = True, recover: bool = False
    ) -> None:
        slot = self._end_twophase(conn, "COMMIT", is_prepared)
        self._commit(slot, functools.partial(do_commit, conn, xid, is_prepared=is_prepared, recover=recover))

    def _do_rollback_twophase(
        self, do_rollback: Callable[..., None], conn: Any, xid: Any, is_prepared: bool = True, recover: bool = False
    ) -> None:
        slot = self._end_twophase(conn, "ROLLBACK", is_prepared)
        try:
            do_rollback(conn, xid, is_prepared=is_prepared, recover=recover)
        finally:
            slot.phase = IDLE
        if is_prepared:
            self._rolled_back(slot)

    def _end_twophase(self, conn: Any, ending: str, is_prepared: bool) -> _Slot:
        slot = self._slot_of(conn._dbapi_connection) or _Slot(self._generation)
        if slot.phase is ACTIVE and (is_prepared or ending == "ROLLBACK"):
            self._rolled_back(slot)  # with a prepared one: another transaction, which has to go first
        slot.phase, slot.ending = ENDING, ending
        return slot

    # Pool

    def _measure_pool(self) -> None:
        """Take over a new pool: at the start, and whenever engine.dispose() has made one."""
        pool: Any = self._engine.pool
        size, limit = _pool_limits(pool)
        self._wrapped = [wrapped for wrapped in self._wrapped if wrapped[1] != "connect"]
        self._wrap(pool, "connect", self._connect)

        def start() -> None:
            self._counts.size, self._counts.limit, self._counts.idle = size, limit, 0

        self._metrics.change(start)

    def _dispose(self, dispose: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        dispose(*args, **kwargs)
        self._disposed()

    @_harmless
    def _disposed(self) -> None:
        self._generation += 1  # what is still in use goes back to the old pool and never becomes idle in the new one
        self._measure_pool()

    def _connect(self, connect: Callable[[], Any]) -> Any:
        outer = _checkout.get()
        checkout = _Checkout()
        _checkout.set(checkout)
        self._asked(checkout)
        try:
            return connect()
        except exc.TimeoutError:
            self._given_up()
            raise
        finally:
            _checkout.set(outer)
            self._answered(checkout)

    @_harmless
    def _asked(self, checkout: _Checkout) -> None:
        self._metrics.pending(1)
        checkout.started = perf_counter()

    @_harmless
    def _given_up(self) -> None:
        self._metrics.timeouts.inc()

    @_harmless
    def _answered(self, checkout: _Checkout) -> None:
        now = perf_counter()
        if checkout.started is not None:
            self._metrics.pending(-1)
            if checkout.connecting is not None:  # could not connect
                checkout.busy += now - checkout.connecting
            self._metrics.wait(max(0.0, now - checkout.started - checkout.busy))

    def _do_ping(self, do_ping: Callable[[Any], bool], dbapi_connection: Any) -> bool:
        started = perf_counter()
        try:
            return do_ping(dbapi_connection)
        finally:
            checkout = _checkout.get()
            if checkout is not None:
                checkout.busy += perf_counter() - started

    @_harmless
    def _on_do_connect(self, dialect: Any, record: Any, cargs: Any, cparams: Any) -> None:
        checkout = _checkout.get()
        if checkout is not None:
            checkout.connecting = perf_counter()

    @_harmless
    def _on_connect(self, dbapi_connection: Any, record: Any) -> None:
        checkout = _checkout.get()
        if checkout is not None and checkout.connecting is not None:
            checkout.busy += perf_counter() - checkout.connecting
            checkout.connecting = None

    def _slot(self, entry: Any) -> _Slot:
        slot = entry.info.get(self._key)
        if slot is None:
            slot = entry.info[self._key] = _Slot(self._generation)
        return slot  # type: ignore[no-any-return]

    @_harmless
    def _on_checkout(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        slot = self._slot(record)
        if slot.state != "used":
            from_idle = slot.state == "idle" and slot.generation == self._generation
            slot.state, slot.since = "used", perf_counter()
            self._move(used=1, idle=-1 if from_idle else 0)

    @_harmless
    def _on_checkin(self, dbapi_connection: Any, record: Any) -> None:
        slot = self._slot(record)
        if slot.state == "used":
            stays = dbapi_connection is not None and slot.generation == self._generation
            slot.state = "idle" if stays else "gone"
            self._move(used=-1, idle=1 if stays else 0, since=slot.since)

    @_harmless
    def _on_close(self, dbapi_connection: Any, record: Any) -> None:
        slot = self._slot(record)
        if slot.phase is ACTIVE:  # nobody ended it, so the server did
            self._rolled_back(slot)
        self._gone(slot)

    @_harmless
    def _on_detach(self, dbapi_connection: Any, record: Any) -> None:
        self._gone(self._slot(record))

    def _gone(self, slot: _Slot) -> None:
        before, slot.state = slot.state, "gone"
        if before == "used":
            self._move(used=-1, since=slot.since)
        elif before == "idle" and slot.generation == self._generation:
            self._move(idle=-1)

    def _move(self, used: int = 0, idle: int = 0, since: float | None = None) -> None:
        now = perf_counter()

        def move() -> None:
            self._counts.used += used
            self._counts.idle += idle
            if since is not None:
                self._metrics.use(now - since)

        self._metrics.change(move)

    @_harmless
    def _on_invalidate(self, dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
        if exception is None:
            kind = "manual"
        elif isinstance(exception, exc.DisconnectionError):
            kind = "ping"
        else:
            kind = "error" if isinstance(exception, Exception) else "cancelled"
        self._metrics.invalidations[kind].inc()

    @_harmless
    def _on_soft_invalidate(self, dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
        self._metrics.invalidations["soft"].inc()


def _pool_limits(pool: Any) -> tuple[float, float]:
    """Size, and size with overflow, of a pool; infinite where it sets no limit."""
    kind = type(pool).__name__
    if kind in {"StaticPool", "AssertionPool"}:
        return 1.0, 1.0
    size = getattr(pool, "size", None)
    if size is None:  # NullPool
        return math.inf, math.inf
    if not callable(size):  # SingletonThreadPool
        return float(size), float(size)
    overflow = getattr(pool, "_max_overflow", 0)  # has no public name
    if overflow < 0 or size() == 0:
        return float(size()) or math.inf, math.inf
    return float(size()), float(size() + overflow)


def _sqlstate(error: BaseException) -> str | None:
    for attribute in ("sqlstate", "pgcode"):  # psycopg 3 and asyncpg; psycopg2
        value = getattr(error, attribute, None)
        if isinstance(value, str):
            return value
    return None


def _sqlstate_class(sqlstate: str | None, lost: bool) -> str:
    """The class of an error; one without a code that lost, or never had, the connection is a connection exception."""
    if sqlstate is None:
        return "08" if lost else OTHER
    return sqlstate[:2] if sqlstate[:2] in SQLSTATE_CLASSES else OTHER
