"""Programs that tests start: on free ports of 127.0.0.1, in temporary folders; waited for, and ended with the tests."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil

from ops import servers
from ops.paths import reachable

T = TypeVar("T")
PATIENCE = 240.0  # seconds; loaded machines need many, and in a successful run none of these waits lasts that long
NOT_YET = (OSError, AssertionError, LookupError, ValueError, httpx2.TransportError, psutil.Error)


def wait_until(predicate: Callable[[], T], timeout: float = PATIENCE, interval: float | None = None) -> T:
    """Call `predicate` until it returns something true, and return that.

    Fails with the last value, or the last exception (one of NOT_YET), after `timeout` seconds. It is called every
    `interval` seconds; by default ten times a second at first, and twice a second after a while, as looking takes time
    from what is waited for.
    """
    began = time.monotonic()
    while True:
        failure: Exception | None = None
        value: T | None = None
        try:
            value = predicate()
        except NOT_YET as error:
            failure = error
        if value:
            return value
        waited = time.monotonic() - began
        if waited > timeout:
            raise AssertionError(f"not true after {timeout:g} s; last value: {value!r}") from failure
        time.sleep(min(max(0.1, waited / 10), 0.5) if interval is None else interval)


GARBAGE_COLLECTION = {"GOGC": "400"}  # of Go's programs: more memory, and a quarter less time of promtool
PORTS = range(20_000, 32_768)  # below those that Linux gives to clients, which would take one between two starts
_reserved: list[socket.socket] = []


@contextmanager
def web_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server whose requests this class answers, each in a thread of its own."""
    server = ThreadingHTTPServer((servers.HOST, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{servers.HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work(over)` runs in a thread until the end of the context, which sets `over` and waits for it."""
    over = threading.Event()
    worker = threading.Thread(target=work, args=(over,))
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def default_signals() -> None:
    """As `preexec_fn`: a program reacts as in a terminal, also where the tests run behind `nohup` or a shell's &."""
    for ignored in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)


def free_port() -> int:
    """A port that nothing listens on, reserved for this process among all test processes of the machine.

    The reservation is an abstract Unix socket named after the port, which goes with the process: the server may start
    late and more than once.
    """
    for port in random.sample(PORTS, len(PORTS)):
        if reservation := _reserve(port):
            _reserved.append(reservation)
            return port
    raise AssertionError("no port is free")


def _reserve(port: int) -> socket.socket | None:
    """The reservation, None where the port is taken."""
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0sightline-tests-port-{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((servers.HOST, port))
    except OSError:
        reservation.close()
        return None
    return reservation


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free, and reserved, as `free_port` has it."""
    while True:
        first = free_port()
        row = [_reserve(first + number) for number in range(1, count)]
        if all(row):
            _reserved.extend(one for one in row if one)
            return first


class Running:
    """A server that was started and answers."""

    def __init__(self, server: servers.Server, log: Path) -> None:
        self.server = server
        self.port = server.port
        self.url = server.url
        self.log_file = log
        # The server ends when the tests do, however they end. A change of the user clears that: one setpriv does both.
        program, *arguments = server.command
        rest = arguments if program == "setpriv" else ["--", *server.command]
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=INT", *rest],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**servers.plain_environment(), **GARBAGE_COLLECTION, **server.environment},
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait(self) -> None:
        def ready() -> bool:
            exit_code = self.process.poll()
            if exit_code is not None:
                raise RuntimeError(f"{self.server.name} ended with exit code {exit_code}:\n{self.log[-2000:]}")
            return self.server.probe() is None

        try:
            wait_until(ready)
        except AssertionError as error:
            problem = self.server.probe()
            raise AssertionError(f"{self.server.name} {problem}. The end of its log:\n{self.log[-2000:]}") from error

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End it, kindly at first; calling it again does nothing."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def suspended(server: Running) -> Iterator[None]:
    """A server, with its processes, that answers nothing and closes no connection."""
    main = psutil.Process(server.process.pid)
    main.suspend()  # first: it starts no process meanwhile, and none that ends vanishes
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in reversed(processes):  # the main one last, which would reap those that have ended
            process.resume()


def start(make: Callable[[int], servers.Server], folder: Path, kind: type[Running] = Running) -> Any:
    """Start a server on a free port and wait until it answers; once more if another process was faster at the port."""
    for attempt in range(3):
        server = make(free_port())
        running = kind(server, folder / f"{server.name}.log")
        try:
            running.wait()
        except BaseException as error:
            running.stop()
            if attempt < 2 and isinstance(error, RuntimeError) and "address already in use" in running.log.lower():
                continue
            raise
        return running
    raise AssertionError("unreachable")


def temporary_folder(prefix: str) -> Path:
    """A new private folder that root can hand to the unprivileged user, wherever TMPDIR points."""
    parent = Path(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent if reachable(parent) else "/var/tmp"))


@contextmanager
def folder(name: str) -> Iterator[Path]:
    path = temporary_folder(f"sightline-{name}-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
