"""The writer that tests of crashes rely on: it has to survive what a crash does to an answer."""

from __future__ import annotations

import itertools
from http.server import BaseHTTPRequestHandler

from tests.ops.writers import writing
from tests.running import wait_until, web_server


class BreaksOff(BaseHTTPRequestHandler):
    """Confirms sign-ups and items; the tenth answer ends before its end."""

    answers = itertools.count(1)

    def do_POST(self) -> None:
        body = b'{"api_key": "key", "id": "1"}'
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:9] if next(self.answers) == 10 else body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_writer_goes_on_after_an_answer_that_breaks_off() -> None:
    with web_server(BreaksOff) as url, writing(url) as writer:
        wait_until(lambda: len(writer.confirmed) >= 20)
    assert [failure.partition("(")[0] for failure in writer.failures] == ["IncompleteRead"]
