"""The proxy of docker-compose.yml with a DNS server like Docker's: replicas come and go, and no request fails."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ops import servers
from ops.paths import PROJECT
from ops.rolling import ACTIVE
from ops.servers import HOST, Server
from tests.running import Running, free_port, start, wait_until

PORT = 8000  # of every replica, as in docker.cfg
A, AAAA = 1, 28
HEADER = 12  # bytes of a DNS message before its question


class Dns(socketserver.BaseRequestHandler):
    """Answers for `app` with all addresses, shuffled; to a question for IPv6 with none."""

    addresses: list[str]

    def handle(self) -> None:
        query, connection = self.request
        question: bytes = query[HEADER : query.index(b"\0", HEADER) + 5]  # the name, its type and class
        found = self.addresses if int.from_bytes(question[-4:-2], "big") == A else []
        records = [
            b"\xc0\x0c" + A.to_bytes(2, "big") + b"\0\1" + bytes(4) + b"\0\4" + socket.inet_aton(address)
            for address in random.sample(found, len(found))
        ]
        counts = b"\0\1" + len(records).to_bytes(2, "big") + bytes(4)
        connection.sendto(query[:2] + b"\x81\x80" + counts + question + b"".join(records), self.client_address)


class Replica(BaseHTTPRequestHandler):
    """Says its own address; `unready` are addresses that are to say 503 at /readyz."""

    unready: set[str]

    def do_GET(self) -> None:
        address: str = self.connection.getsockname()[0]
        self.send_response(503 if self.path == "/readyz" and address in self.unready else 200)
        self.send_header("Content-Length", str(len(address)))
        self.end_headers()
        self.wfile.write(address.encode())

    def log_message(self, *arguments: object) -> None:
        pass


class Replicas:
    """HAProxy, its DNS server, and replicas on loopback addresses of their own."""

    def __init__(self, exits: ExitStack, folder: Path) -> None:
        self.known: list[str] = []
        self.unready: set[str] = set()
        self.replicas: dict[str, ThreadingHTTPServer] = {}
        self.replica = type("OneReplica", (Replica,), {"unready": self.unready})
        handler = type("OneDns", (Dns,), {"addresses": self.known})
        dns = exits.enter_context(socketserver.ThreadingUDPServer((HOST, 0), handler))
        threading.Thread(target=dns.serve_forever, args=(0.05,), daemon=True).start()
        exits.callback(dns.shutdown)
        metrics = free_port()
        docker_cfg = (PROJECT / "proxy" / "docker.cfg").read_text()
        (folder / "docker.cfg").write_text(docker_cfg.replace("init-state down", ""))  # which 2.6 does not know

        def proxy(port: int) -> Server:
            server = servers.proxy(port, metrics, folder / "docker.cfg")
            dns_address = {"PROXY_DNS": f"{HOST}:{dns.server_address[1]}"}
            return replace(server, port=port, environment={**server.environment, **dns_address})

        self.proxy: Running = start(proxy, folder)
        self.metrics = f"http://{HOST}:{metrics}/metrics"
        exits.callback(self.proxy.stop)
        exits.callback(self.end_all)

    def begin(self) -> str:
        """A new replica, known to the DNS server."""
        address = ".".join(["127", *(str(random.randint(1, 250)) for _ in range(3))])
        server = ThreadingHTTPServer((address, PORT), self.replica)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.replicas[address] = server
        self.known.append(address)
        return address

    def end(self, address: str) -> None:
        """It refuses connections, and the DNS server forgets it, as when Docker ends a container."""
        server = self.replicas.pop(address)
        server.shutdown()
        server.server_close()
        self.known.remove(address)

    def end_all(self) -> None:
        for address in [*self.replicas]:
            self.end(address)

    def active(self) -> int:
        with urllib.request.urlopen(self.metrics, timeout=60) as answer:
            found = ACTIVE.search(answer.read().decode())
        return int(found[1]) if found else 0

    def answered(self, count: int = 12) -> set[str]:
        """Who answers so many requests; one that fails raises OSError."""
        answers = set()
        for _ in range(count):
            with urllib.request.urlopen(self.proxy.url, timeout=60) as answer:
                answers.add(answer.read().decode())
        return answers


@contextmanager
def replicas(folder: Path) -> Iterator[Replicas]:
    with ExitStack() as exits:
        yield Replicas(exits, folder)


def test_replicas_come_and_go_by_dns(tmp_path: Path) -> None:
    with replicas(tmp_path) as those:
        first = {those.begin() for _ in range(3)}
        wait_until(lambda: those.active() == 3)
        assert those.answered() == first

        for _ in range(2):  # a rolling restart, then scaled down: the proxy's slots are in use and free in every order
            for old in [*those.replicas]:
                new = those.begin()
                wait_until(lambda: those.active() == 4)
                those.unready.add(old)
                wait_until(lambda: those.active() == 3)
                those.end(old)
                assert old not in those.answered()
                assert new in those.answered(24)
        last, *others = those.replicas
        those.unready.update(others)
        wait_until(lambda: those.active() == 1)
        for other in others:
            those.end(other)
        for _ in range(30):
            assert those.answered() == {last}


def test_all_unready_replicas_get_the_requests_and_a_ready_one_alone(tmp_path: Path) -> None:
    with replicas(tmp_path) as those:
        both = {those.begin(), those.begin()}
        wait_until(lambda: those.active() == 2)
        those.unready.update(both)
        wait_until(lambda: those.active() == 0)
        assert those.answered() == both
        new = those.begin()
        wait_until(lambda: those.active() == 1)
        assert those.answered() == {new}
