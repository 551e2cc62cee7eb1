"""Traffic as users of the service make it, with an exact record of what was asked and answered."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx2


@dataclass
class Record:
    """What the users saw; everything here the metrics have to say as well."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # (method, route, status)
    tokens: Counter[str] = field(default_factory=Counter)  # input, output
    chats: int = 0
    users: int = 0
    prompt_characters: int = 0
    longest_prompt: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, method: str, route: str, status: int) -> None:
        with self._lock:
            self.requests[method, route, status] += 1

    def chat(self, prompt: str, usage: dict[str, int]) -> None:
        with self._lock:
            self.chats += 1
            self.prompt_characters += len(prompt)
            self.longest_prompt = max(self.longest_prompt, len(prompt))
            self.tokens.update(input=usage["input_tokens"], output=usage["output_tokens"])


def drive(url: str, seconds: float, users: int = 3) -> Record:
    """Some users at once, each doing everything that the service offers again and again for `seconds`."""
    record = Record(users=users)
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(users) as pool:
        for user in [pool.submit(_user, url, end, number, record) for number in range(users)]:
            user.result()
    return record


def _user(url: str, end: float, number: int, record: Record) -> None:
    with httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:

        def call(method: str, path: str, route: str, expect: int, **options: object) -> httpx2.Response:
            response = client.request(method, path, **options)  # type: ignore[arg-type]
            record.request(method, route, response.status_code)
            assert response.status_code == expect, f"{method} {path}: {response.status_code} {response.text}"
            return response

        key = call("POST", "/users", "/users", 201, json={"name": f"user {number}"}).json()["api_key"]
        call("GET", "/users/me", "/users/me", 401)
        client.headers["Authorization"] = f"Bearer {key}"
        call("GET", "/users/me", "/users/me", 200)
        turn = 0
        while turn == 0 or time.monotonic() < end:
            turn += 1
            item = {"title": f"Item {turn}", "description": "made by a test"}
            identity = call("POST", "/items", "/items", 201, json=item).json()["id"]
            call("GET", "/items?limit=5", "/items", 200)
            call("PUT", f"/items/{identity}", "/items/{item_id}", 200, json={**item, "title": "Changed"})
            call("GET", f"/items/{identity}", "/items/{item_id}", 200)
            call("DELETE", f"/items/{identity}", "/items/{item_id}", 204)
            call("GET", f"/items/{identity}", "/items/{item_id}", 404)
            question = "How does this system feel today? " * turn
            answer = call("POST", "/chat", "/chat", 200, json={"message": question, "stream": False}).json()
            record.chat(question, answer["usage"])
            conversation = answer["conversation_id"]
            follow_up = {"message": "And tomorrow?", "stream": True, "conversation_id": conversation}
            record.chat(follow_up["message"], _streamed(client, follow_up, record))
            call("GET", "/conversations", "/conversations", 200)
            call("GET", f"/conversations/{conversation}", "/conversations/{conversation_id}", 200)


def _streamed(client: httpx2.Client, question: dict[str, object], record: Record) -> dict[str, int]:
    """Ask for a streamed answer, read it to the end and return its usage."""
    usage: dict[str, int] | None = None
    event = ""
    with client.stream("POST", "/chat", json=question) as response:
        record.request("POST", "/chat", response.status_code)
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("event:"):
                event = line.removeprefix("event:").strip()
            elif line.startswith("data:") and event == "done":
                usage = json.loads(line.removeprefix("data:"))["usage"]
    assert usage is not None, f"the stream ended with '{event}'"
    return usage
