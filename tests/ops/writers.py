"""Clients that write to the service for as long as a test wants, and keep what was confirmed and what failed."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import httpx2

from tests.running import wait_until

PACE = 0.05  # seconds between a writer's requests


def sign_up(url: str, name: str) -> dict[str, str]:
    """The headers of a new user's requests."""
    return {"Authorization": f"Bearer {httpx2.post(f'{url}/users', json={'name': name}, timeout=60).json()['api_key']}"}


class Writer(threading.Thread):
    """A client that records what the service has confirmed, and accepts errors as answers."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.confirmed: list[str] = []
        self.failures: list[str] = []
        self._enough = threading.Event()
        self._key = self.ask("POST", "/users", {"name": "survivor"})["api_key"]

    def run(self) -> None:
        while not self._enough.wait(PACE):
            try:
                item = self.ask("POST", "/items", {"title": "kept", "description": "confirmed, so never lost"})
            except urllib.error.HTTPError as error:
                self.failures.append(f"{error.code}: {error.read(200)!r}")
            except (OSError, HTTPException) as error:  # HTTPException: an answer that breaks off
                self.failures.append(repr(error))
            else:
                self.confirmed.append(item["id"])

    @property
    def errors(self) -> int:
        return len(self.failures)

    def stop(self) -> None:
        self._enough.set()
        self.join()

    def ask(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if hasattr(self, "_key"):
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def writing(url: str) -> Iterator[Writer]:
    """A writer that has begun; it ends with the context."""
    writer = Writer(url)
    writer.start()
    try:
        wait_until(lambda: len(writer.confirmed) >= 10)
        yield writer
    finally:
        writer.stop()
