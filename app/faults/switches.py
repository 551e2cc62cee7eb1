"""Which faults are active.

An active fault is a small file in a private folder that every worker polls several times a second, so any worker can
take the request that switches it, and the switch works while the database is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException

from app.faults import database, llm, machine, requests
from app.faults.base import Fault, Service, logger, switch_file
from app.faults.database import DatabaseSlow
from app.faults.llm import LLMFault
from app.faults.requests import RequestFault
from app.llm import SimulatedBehaviour, SimulatedProvider

POLL_SECONDS = 0.2

_dice = random.SystemRandom()

FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        *(requests.Slow, requests.Errors, requests.Exceptions),
        *(database.DatabaseSlow, database.PoolExhausted, database.Deadlocks, database.LongTransaction),
        *(llm.LLMSlow, llm.LLMErrors, llm.LLMRateLimit, llm.LLMIncomplete, llm.LLMTokenFlood),
        *(machine.Memory, machine.CPU, machine.Disk, machine.EventLoop, machine.Crash),
    )
}


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
        file = switch_file(self.service.folder, fault.name)
        # Renamed into place, so that no reader sees a partial file.
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"until": switch.until, "parameters": fault.model_dump()}))
        temporary.replace(file)
        logger.warning("Fault %s is on for %g s: %s", fault.name, fault.seconds, fault)
        self._refresh()
        return switch

    def switch_off(self, name: str) -> None:
        """Switch a fault off; does nothing if it is not active."""
        switch_file(self.service.folder, name).unlink(missing_ok=True)
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
        file = switch_file(self.service.folder, name)
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
