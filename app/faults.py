"""Fault injection for drills: each fault is switched on for a limited time, in all workers, by requests with the token.

The module is imported, and its routes exist, only if FAULTS_ENABLED=true. An active fault is a small file in a private
folder that every worker polls several times a second, so any worker can take the request, and the switch works while
the database is down. Each fault ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hmac
import json
import logging
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.api.errors import BODY_ERRORS, responses
from app.llm import LLMService, SimulatedBehaviour, SimulatedProvider
from app.settings import Settings, SettingsError

MAX_SECONDS = 1800
POLL_SECONDS = 0.2

logger = logging.getLogger("app.faults")
_bearer = HTTPBearer(auto_error=False, scheme_name="FaultsToken", description="The content of FAULTS_TOKEN_FILE.")
_dice = random.SystemRandom()


class InjectedError(Exception):
    """The unhandled exception that the fault `exceptions` raises."""


@dataclass(frozen=True)
class Service:
    """The parts of the service that faults act on."""

    engine: AsyncEngine
    llm: LLMService
    folder: Path
    """Where the switches are kept."""
    disk_folder: Path
    pool_limit: int
    """Maximum number of connections of the engine's pool."""


class Fault(BaseModel):
    """Base of all faults: duration, and what happens while the fault is on."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: ClassVar[str]
    one_worker: ClassVar[bool] = False
    """Whether a single worker runs the fault, which bounds its effect, or every worker does."""

    seconds: float = Field(60, gt=0, le=MAX_SECONDS, description="Duration; the fault ends by itself.")

    async def run(self, service: Service) -> None:
        """Runs while the fault is on, then is cancelled."""


LLMErrorKind = Literal[
    "timeout",
    "connection",
    "auth",
    "bad_request",
    "context_length",
    "content_filter",
    "overloaded",
    "server",
    "other",
]
Share = Annotated[float, Field(gt=0, le=1, description="Share of requests that are affected.")]
PathPrefix = Annotated[
    str, Field(pattern="^/", max_length=200, description="Only requests whose path starts with this.")
]


class RequestFault(Fault):
    """Base of the faults that affect API requests (not probes, /metrics or /faults)."""

    share: Share = 1.0
    path_prefix: PathPrefix = "/"

    async def hit(self) -> None:
        """Called for an affected request before its handler runs."""
        raise NotImplementedError


class Slow(RequestFault):
    """Requests are delayed before they are handled."""

    name = "slow"
    delay: float = Field(2, gt=0, le=30, description="Seconds.")

    async def hit(self) -> None:
        await asyncio.sleep(self.delay)


class Errors(RequestFault):
    """A share of the requests is answered with a server error."""

    name = "errors"
    share: Share = 0.2
    status: Literal[500, 502, 503, 504] = 500

    async def hit(self) -> None:
        raise HTTPException(self.status, "An injected fault")


class Exceptions(RequestFault):
    """A share of the requests ends in an unhandled exception."""

    name = "exceptions"
    share: Share = 0.2

    async def hit(self) -> None:
        raise InjectedError("an injected fault")


class DatabaseSlow(Fault):
    """Every query first sleeps in PostgreSQL."""

    name = "database-slow"
    share: Share = 1.0
    delay: float = Field(1, gt=0, le=10, description="Seconds.")


class PoolExhausted(Fault):
    """Every connection of the pool is checked out and held."""

    name = "pool-exhausted"

    async def run(self, service: Service) -> None:
        async with contextlib.AsyncExitStack() as connections:
            for _ in range(service.pool_limit):
                while True:
                    # Requests hold connections, too: wait until they return them.
                    with contextlib.suppress(PoolTimeoutError):
                        await connections.enter_async_context(service.engine.connect())
                        break
            await asyncio.Event().wait()


class Deadlocks(Fault):
    """Pairs of transactions take the same two locks in opposite order; PostgreSQL ends one of each pair."""

    name = "deadlocks"
    one_worker = True
    pause: float = Field(1, ge=0, le=60, description="Seconds between deadlocks; PostgreSQL takes 1 s to detect one.")

    async def run(self, service: Service) -> None:
        while True:
            both_hold_one = asyncio.Barrier(2)
            pair = [self._lock(service.engine, both_hold_one, *order) for order in ((1, 2), (2, 1))]
            for error in await asyncio.gather(*pair, return_exceptions=True):
                if error is not None and not isinstance(error, DBAPIError | TimeoutError | PoolTimeoutError):
                    raise error
            await asyncio.sleep(self.pause)

    async def _lock(self, engine: AsyncEngine, both_hold_one: asyncio.Barrier, first: int, second: int) -> None:
        """Advisory locks deadlock like row locks, and touch no data."""
        async with asyncio.timeout(30), engine.begin() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, first)))
            await both_hold_one.wait()
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, second)))


class LongTransaction(Fault):
    """A transaction with an assigned id stays open and idle, so vacuum cannot remove newer dead rows."""

    name = "long-transaction"
    one_worker = True

    async def run(self, service: Service) -> None:
        async with service.engine.connect() as connection:
            await connection.execute(select(func.pg_current_xact_id()))
            await asyncio.Event().wait()


class LLMFault(Fault):
    """Base of the faults of the simulated LLM provider."""

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        """The provider's behaviour while the fault is on."""
        raise NotImplementedError


class LLMSlow(LLMFault):
    """The model has a high TTFT and TPOT."""

    name = "llm-slow"
    first_token_seconds: float = Field(10, ge=0, le=120)
    tokens_per_second: float = Field(10, gt=0, le=10_000)

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(
            behaviour, first_token_seconds=self.first_token_seconds, tokens_per_second=self.tokens_per_second
        )


class LLMErrors(LLMFault):
    """A share of the calls fails."""

    name = "llm-errors"
    share: Annotated[float, Field(gt=0, le=1, description="Share of calls that fail.")] = 0.5
    kind: LLMErrorKind = "server"

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(behaviour, error_share=self.share, error_kind=self.kind)


class LLMRateLimit(LLMFault):
    """The provider rejects calls above a rate."""

    name = "llm-rate-limit"
    requests_per_minute: int = Field(0, ge=0, le=60_000, description="Per worker.")

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(behaviour, requests_per_minute=self.requests_per_minute)


class LLMIncomplete(LLMFault):
    """Answers end in the middle, without an error and without usage."""

    name = "llm-incomplete"
    share: Annotated[float, Field(gt=0, le=1, description="Share of answers that end early.")] = 0.5

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(behaviour, incomplete_share=self.share)


class LLMTokenFlood(LLMFault):
    """Answers are very long, so tokens and cost grow."""

    name = "llm-token-flood"
    output_tokens: int = Field(5000, ge=1, le=100_000)
    tokens_per_second: float = Field(5000, gt=0, le=100_000)

    def change(self, behaviour: SimulatedBehaviour) -> SimulatedBehaviour:
        return replace(behaviour, output_tokens=self.output_tokens, tokens_per_second=self.tokens_per_second)


class Memory(Fault):
    """One worker's memory grows to a limit, and is released at the end."""

    name = "memory"
    one_worker = True
    megabytes: int = Field(256, ge=1, le=4096)
    megabytes_per_second: float = Field(64, gt=0, le=1024)

    async def run(self, service: Service) -> None:
        hoard = []
        for _ in range(self.megabytes):
            hoard.append(b"\x01" * 2**20)  # not zeros: those would take no memory until written to
            await asyncio.sleep(1 / self.megabytes_per_second)
        await asyncio.Event().wait()


class CPU(Fault):
    """Processes that burn CPU time."""

    name = "cpu"
    one_worker = True
    processes: int | None = Field(None, ge=1, le=64, description="Default: one per core.")

    # A burner ends after its time, or with its parent, even if that is killed.
    _BURN: ClassVar[str] = (
        "import os, sys, time\n"
        "end, parent = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])\n"
        "while time.monotonic() < end and os.getppid() == parent:\n"
        "    for _ in range(100_000): pass\n"
    )

    async def run(self, service: Service) -> None:
        command = (sys.executable, "-I", "-c", self._BURN, str(self.seconds), str(os.getpid()))
        burners = []
        try:
            for _ in range(self.processes or os.cpu_count() or 1):
                burners.append(await asyncio.create_subprocess_exec(*command, env={}))  # noqa: PERF401
            await asyncio.Event().wait()
        finally:
            for burner in burners:
                with contextlib.suppress(ProcessLookupError):
                    burner.kill()
                await burner.wait()


class Disk(Fault):
    """A file fills the disk, but leaves a reserve."""

    name = "disk"
    one_worker = True
    megabytes: int = Field(256, ge=1, le=100_000)
    reserve_megabytes: int = Field(512, ge=0, le=100_000, description="Free space that is always left.")

    async def run(self, service: Service) -> None:
        free = shutil.disk_usage(service.disk_folder).free // 2**20
        size = min(self.megabytes, free - self.reserve_megabytes)
        if size <= 0:
            logger.warning("Fault disk: %d MiB are free, nothing to fill", free)
        # Unlinked: the space is freed when the file is closed, even by SIGKILL.
        with tempfile.TemporaryFile(dir=service.disk_folder) as file:
            if size > 0:
                await asyncio.to_thread(os.posix_fallocate, file.fileno(), 0, size * 2**20)
            await asyncio.Event().wait()


class EventLoop(Fault):
    """Each worker's event loop is blocked repeatedly, as by a blocking call in a coroutine."""

    name = "event-loop"
    stall: float = Field(1, gt=0, le=10, description="Seconds.")
    pause: float = Field(0.5, ge=0, le=60, description="Seconds between stalls; 0: one iteration of the loop.")

    async def run(self, service: Service) -> None:
        while True:
            time.sleep(self.stall)  # noqa: ASYNC251  this is the fault
            await asyncio.sleep(self.pause)


class Crash(Fault):
    """Workers are killed with SIGKILL: one of them once, or all of them repeatedly until the time is over."""

    name = "crash"
    seconds: float = Field(5, gt=0, le=MAX_SECONDS, description="For `all`: restarted workers are killed, too.")
    workers: Literal["one", "all"] = "one"
    delay: float = Field(0.5, ge=0.1, le=60, description="Seconds until a worker is killed.")

    async def run(self, service: Service) -> None:
        await asyncio.sleep(self.delay)
        if self.workers == "one":
            try:
                _switch_file(service.folder, self.name).unlink()
            except FileNotFoundError:
                return  # another worker claimed it
        logger.warning("Fault crash: this worker kills itself")
        os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        Slow,
        Errors,
        Exceptions,
        DatabaseSlow,
        PoolExhausted,
        Deadlocks,
        LongTransaction,
        LLMSlow,
        LLMErrors,
        LLMRateLimit,
        LLMIncomplete,
        LLMTokenFlood,
        Memory,
        CPU,
        Disk,
        EventLoop,
        Crash,
    )
}

# Two-key advisory locks never collide with the one-key lock of the migrations.
_LOCK_SPACE = 0x5167


@dataclass(frozen=True)
class Switch:
    """An active fault."""

    fault: Fault
    until: float
    """Unix time, which all workers share."""


class Faults:
    """The active faults, as seen by this worker."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._on: dict[str, Switch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        provider = service.llm.provider
        self._simulated = provider if isinstance(provider, SimulatedProvider) else None
        self._behaviour = self._simulated.behaviour if self._simulated else SimulatedBehaviour()
        self._slow_down_queries(service.engine.dialect)

    def on(self) -> dict[str, Switch]:
        """The faults that are active now."""
        now = time.time()
        return {name: switch for name, switch in self._on.items() if switch.until > now}

    def switch_on(self, fault: Fault) -> Switch:
        """Switch a fault on, or restart it with other parameters.

        Raises:
            HTTPException: 409, if the fault needs the simulated LLM provider and another one is configured.
        """
        if isinstance(fault, LLMFault) and self._simulated is None:
            raise HTTPException(409, "This fault needs the simulated LLM provider: set LLM_PROVIDER=simulated")
        switch = Switch(fault, time.time() + fault.seconds)
        file = _switch_file(self.service.folder, fault.name)
        # Renamed into place, so that no reader sees a partial file.
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"until": switch.until, "parameters": fault.model_dump()}))
        temporary.replace(file)
        logger.warning("Fault %s is on for %g s: %s", fault.name, fault.seconds, fault)
        self._refresh()
        return switch

    def switch_off(self, name: str) -> None:
        """Switch a fault off; does nothing if it is not active."""
        _switch_file(self.service.folder, name).unlink(missing_ok=True)
        self._refresh()

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Poll the switches while the context is open; active faults end with it."""
        watcher = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watcher.cancel()
            tasks = [watcher, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def hit_request(self, path: str) -> None:
        """Apply the active faults to a request."""
        for switch in self.on().values():
            fault = switch.fault
            if isinstance(fault, RequestFault) and path.startswith(fault.path_prefix) and _dice.random() < fault.share:
                await fault.hit()

    def _slow_down_queries(self, dialect: Any) -> None:
        """Patch the dialect's call of the driver, which is inside what telemetry measures."""
        execute = dialect.do_execute

        def slow(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            switch = self.on().get(DatabaseSlow.name)
            if switch and isinstance(switch.fault, DatabaseSlow) and _dice.random() < switch.fault.share:
                cursor.execute("SELECT pg_sleep(%s)", (switch.fault.delay,))
            execute(cursor, statement, parameters, context)

        dialect.do_execute = slow

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._refresh()

    def _refresh(self) -> None:
        """Start and stop faults so that they match the switch files."""
        found = {name: switch for name in FAULTS if (switch := self._read(name))}
        for name in self._on.keys() | found.keys():
            if self._on.get(name) == found.get(name):
                continue
            if task := self._tasks.pop(name, None):
                task.cancel()
            if switch := found.get(name):
                self._tasks[name] = asyncio.create_task(self._run(switch.fault))
            elif name in self._on:
                logger.warning("Fault %s is over", name)
        self._on = found
        if self._simulated:
            behaviour = self._behaviour
            for switch in found.values():
                if isinstance(switch.fault, LLMFault):
                    behaviour = switch.fault.change(behaviour)
            self._simulated.behaviour = behaviour

    def _read(self, name: str) -> Switch | None:
        file = _switch_file(self.service.folder, name)
        try:
            content = json.loads(file.read_text())
            switch = Switch(FAULTS[name].model_validate(content["parameters"]), float(content["until"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("Ignoring %s: %s", file, error)
            return None
        return switch if switch.until > time.time() else None

    async def _run(self, fault: Fault) -> None:
        try:
            async with self._turn(fault):
                await fault.run(self.service)
        except Exception:
            logger.exception("Fault %s failed", fault.name)

    @contextlib.asynccontextmanager
    async def _turn(self, fault: Fault) -> AsyncIterator[None]:
        """For a fault of one worker: wait for the lock. If the worker that holds it dies, another one takes over."""
        if not fault.one_worker:
            yield
            return
        with open(self.service.folder / f"{fault.name}.lock", "w") as lock:  # noqa: ASYNC230  an empty local file
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                await asyncio.sleep(POLL_SECONDS)
            yield


def add_faults(app: FastAPI, settings: Settings, engine: AsyncEngine, llm: LLMService) -> None:
    """Add the /faults routes to the application; its lifespan has to enter `app.state.faults.watch()`.

    Raises:
        SettingsError: the folder for the switches or for the disk fault cannot be used.
    """
    folder = settings.faults_dir or Path(tempfile.gettempdir()) / f"sightline-faults-{os.getuid()}-{settings.app_port}"
    _make_private(folder)
    disk_folder = settings.faults_disk_dir or folder
    if not os.access(disk_folder, os.W_OK | os.X_OK):
        raise SettingsError(f"FAULTS_DISK_DIR: {disk_folder} is not a folder that the service can write to")
    pool_limit = settings.database_pool_size + settings.database_max_overflow
    app.state.faults = Faults(Service(engine, llm, folder, disk_folder, pool_limit))
    token = settings.faults_token.get_secret_value() if settings.faults_token else ""
    app.include_router(_router(app.state.faults, token))
    logger.warning("FAULTS_ENABLED: every client with the faults token can break this service")


def _make_private(folder: Path) -> None:
    """Accept the folder only if this user alone can access it: other users of the machine can guess its name."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SettingsError(f"FAULTS_DIR: cannot use {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise SettingsError(f"FAULTS_DIR: {folder} must belong to this user, with mode 0700")


def _switch_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


async def hit_by_faults(request: Request) -> None:
    """Dependency of the API's routes: it runs when the route is known, so metrics have the endpoint."""
    faults: Faults = request.app.state.faults
    await faults.hit_request(request.scope["path"])


class FaultState(BaseModel):
    name: str
    description: str
    active: bool
    seconds_left: float | None
    parameters: dict[str, Any] | None


class FaultList(BaseModel):
    faults: list[FaultState]


def _router(faults: Faults, token: str) -> APIRouter:
    """The /faults routes. Every route requires the token, since faults break the service."""

    def check_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
        given = credentials.credentials if credentials else ""
        if not token or not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "A valid faults token is required", {"WWW-Authenticate": "Bearer"})

    router = APIRouter(prefix="/faults", tags=["faults"], dependencies=[Depends(check_token)])

    def state(name: str) -> FaultState:
        switch = faults.on().get(name)
        return FaultState(
            name=name,
            description=(FAULTS[name].__doc__ or "").strip(),
            active=switch is not None,
            seconds_left=max(0.0, switch.until - time.time()) if switch else None,
            parameters=switch.fault.model_dump() if switch else None,
        )

    @router.get("", responses=responses(401))
    async def list_faults() -> FaultList:
        """All faults and their state. Another worker sees a change after up to 0.2 seconds."""
        return FaultList(faults=[state(name) for name in FAULTS])

    @router.delete("", status_code=204, responses=responses(401))
    async def switch_all_off() -> Response:
        for name in FAULTS:
            faults.switch_off(name)
        return Response(status_code=204)

    for name, kind in FAULTS.items():
        _add_switch(router, faults, state, name, kind)
    return router


def _add_switch(
    router: APIRouter, faults: Faults, state: Callable[[str], FaultState], name: str, kind: type[Fault]
) -> None:
    """Add routes per fault, so that the OpenAPI document has its parameters."""

    async def switch_on(fault: Fault) -> FaultState:
        faults.switch_on(fault)
        return state(name)

    async def switch_off() -> Response:
        """Succeeds also if the fault is not active."""
        faults.switch_off(name)
        return Response(status_code=204)

    switch_on.__annotations__["fault"] = kind
    switch_on.__doc__ = kind.__doc__
    router.add_api_route(
        f"/{name}",
        switch_on,
        methods=["POST"],
        name=f"Switch on {name}",
        responses=responses(401, 409, *BODY_ERRORS),
    )
    router.add_api_route(
        f"/{name}",
        switch_off,
        methods=["DELETE"],
        status_code=204,
        name=f"Switch off {name}",
        responses=responses(401),
    )
