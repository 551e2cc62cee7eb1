"""What simulated users report for the streams that they read, to the end or not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from ops.paths import PROJECT
from tests.running import web_server

START, DELTA, DONE, ERROR = (f"event: {name}\ndata: {{}}\n\n" for name in ("start", "delta", "done", "error"))

# In a process of its own, as Locust replaces Python's sockets. Prints Locust's requests and our stream events.
READER = """
import json, sys
from locust.env import Environment
from loadtest import users
from loadtest.settings import Settings

environment = Environment()
user = users.configure(Settings(host=sys.argv[1]))(environment)
requests, stream_events = [], []
environment.events.request.add_listener(
    lambda request_type, name, exception, **_: requests.append([request_type, name, str(exception or "")])
)
users.stream_events.add_listener(lambda kind, name, seconds: stream_events.append([kind, name]))
users._read_stream(user, json.loads(sys.argv[2]))
assert not users.in_flight
print(json.dumps([requests, stream_events]))
"""


@contextmanager
def streaming(parts: list[str], whole: bool) -> Iterator[str]:
    """The address of a service that streams these parts in every response, and ends the stream if `whole`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in parts + [""] * whole:
                self.wfile.write(f"{len(part):x}\r\n{part}\r\n".encode())
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with web_server(Handler) as url:
        yield url


@pytest.mark.parametrize(
    ("parts", "leave_after", "name", "failure", "events"),
    [
        ([START, DELTA, DELTA, DONE], None, "/chat (streamed)", "", ["FIRST TOKEN"]),
        ([START, DELTA, DONE], 5, "/chat (streamed)", "", ["FIRST TOKEN"]),
        ([START, DELTA, DELTA, DELTA, DONE], 2, "/chat (abandoned)", "", ["FIRST TOKEN", "ABANDONED"]),
        ([START, DELTA, ERROR], None, "/chat (streamed)", "the stream ended with an error event", ["FIRST TOKEN"]),
        ([START], None, "/chat (streamed)", "the stream broke off", []),
    ],
)
def test_a_stream_is_one_request_however_it_ends(
    parts: list[str], leave_after: int | None, name: str, failure: str, events: list[str]
) -> None:
    with streaming(parts, whole=len(parts) > 1) as url:
        read = subprocess.run(
            [sys.executable, "-c", READER, url, json.dumps(leave_after)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert read.returncode == 0, read.stderr
    requests, seen = json.loads(read.stdout)
    assert requests == [["POST", name, failure]]
    assert seen == [[kind, "/chat (streamed)"] for kind in events]


ENDED = """
import gevent
from locust.env import Environment
from loadtest import users
from loadtest.settings import Settings

user = users.configure(Settings(host="http://127.0.0.1:9"))(Environment())

def ask(route):
    with user.tracked(route):
        gevent.sleep(60)

for state in ("running", "stopping"):
    user._state = state
    request = gevent.spawn(ask, state)
    gevent.sleep(0)
    request.kill()
assert not users.in_flight
print(*users.unfinished)
"""


def test_a_request_that_begins_as_its_user_is_ended_was_not_open_at_the_end() -> None:
    """Locust ends users that pause at once; those in a request it asks to stop first, and waits for."""
    ended = subprocess.run([sys.executable, "-c", ENDED], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert ended.stdout.split() == ["stopping"], ended.stderr
