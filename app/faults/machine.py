"""Faults of the machine and of the workers: memory, CPU, disk, the event loop, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from typing import ClassVar, Literal

from pydantic import Field

from app.faults.base import MAX_SECONDS, Fault, Service, logger, switch_file


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
                switch_file(service.folder, self.name).unlink()
            except FileNotFoundError:
                return  # another worker claimed it
        logger.warning("Fault crash: this worker kills itself")
        os.kill(os.getpid(), signal.SIGKILL)
