"""What simulated users do: sign up, browse, write, chat (whole and streamed), and sometimes abandon a stream."""

import json
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gevent import GreenletExit
from geventhttpclient import HTTPParseError
from locust import between
from locust.contrib.fasthttp import FastHttpUser, ResponseContextManager
from locust.event import EventHook
from locust.exception import RescheduleTask, StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from loadtest.record import ABANDONED, FIRST_TOKEN
from loadtest.settings import Settings

QUESTIONS = (
    "Which of my items should I look at first, and why?",
    "Summarise what changed since yesterday in two sentences.",
    "Write a friendly reminder about the open items, with one line for each of them. " * 4,
    "Explain the difference between a histogram and a summary to a new colleague. " * 12,
)
STREAMED = "/chat (streamed)"
ABANDONED_STREAM = "/chat (abandoned)"

# Fired with kind (FIRST_TOKEN or ABANDONED), name and seconds: events inside a request, no requests for Locust.
stream_events = EventHook()

# The request that each user waits for: its name, and its start (time.monotonic).
in_flight: dict["SimulatedUser", tuple[str, float]] = {}

# The requests, by their names, that were given up at the end of the run.
unfinished: list[str] = []


class SimulatedUser(FastHttpUser):
    """A user with an account of its own. `configure` sets think times and weights."""

    abstract = True
    api_key = ""
    connection_timeout = 10.0
    network_timeout = 60.0

    def on_start(self) -> None:
        """Sign up, trying again for as long as the service refuses."""
        while not self.api_key:
            response = self.call("POST", "/users", "/users", json={"name": f"load-{secrets.token_hex(4)}"})
            if response.status_code == 201:
                self.api_key = json.loads(response.text or "{}")["api_key"]
            if not self.api_key:
                try:
                    self.wait()
                except StopUser:  # the run is over; raised from here, Locust would report an error
                    return

    def call(self, method: str, path: str, name: str, **options: Any) -> ResponseContextManager:
        """Send one request with the user's key and read the whole response; `name` is the route it is counted under."""
        with self.tracked(name):
            return self.send(method, path, name, **options)

    def send(self, method: str, path: str, name: str, **options: Any) -> ResponseContextManager:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return self.client.request(method, path, name=name, headers=headers, **options)

    @contextmanager
    def tracked(self, name: str) -> Iterator[None]:
        """Keep the request in `in_flight` while the block runs."""
        in_flight[self] = name, time.monotonic()
        try:
            yield
        except GreenletExit:
            # The run is over, and so is the time that requests have to finish. A user whose pause ends in the moment in
            # which Locust ends it begins one more request, which is none of the run's.
            if self._state == LOCUST_STATE_STOPPING:
                unfinished.append(name)
            raise
        finally:
            del in_flight[self]

    def make_item(self) -> int | str:
        """Create an item and return its id; an error response ends the task."""
        title = random.choice(("Milk", "Bread", "Report", "Call back", "Invoice"))
        response = self.call("POST", "/items", "/items", json={"title": title, "description": "from a load test"})
        if response.status_code != 201:
            raise RescheduleTask
        item_id: int | str = json.loads(response.text or "{}")["id"]
        return item_id


def browse(user: SimulatedUser) -> None:
    """Read the first pages of the user's items."""
    cursor: str | None = None
    for _ in range(random.randint(1, 3)):
        path = "/items?limit=20" + (f"&after={cursor}" if cursor else "")
        response = user.call("GET", path, "/items")
        if response.status_code != 200:
            return
        page = json.loads(response.text or "{}")
        if page["items"] and random.random() < 0.5:
            user.call("GET", f"/items/{random.choice(page['items'])['id']}", "/items/{item_id}")
        cursor = page["next"]
        if cursor is None:
            return


def write(user: SimulatedUser) -> None:
    """Create an item, update it, and delete it half of the time."""
    item_id = user.make_item()
    user.call("PUT", f"/items/{item_id}", "/items/{item_id}", json={"title": "Corrected", "description": "once more"})
    if random.random() < 0.5:
        user.call("DELETE", f"/items/{item_id}", "/items/{item_id}")


def chat(user: SimulatedUser) -> None:
    """Request a whole answer."""
    user.call("POST", "/chat", "/chat", json={"message": random.choice(QUESTIONS), "stream": False})


def stream(user: SimulatedUser) -> None:
    """Request a streamed answer and read it to the end."""
    _read_stream(user, leave_after=None)


def abandon(user: SimulatedUser) -> None:
    """Request a streamed answer and close the connection after its first words."""
    _read_stream(user, leave_after=random.randint(1, 5))


def _read_stream(user: SimulatedUser, leave_after: int | None) -> None:
    request = {"message": random.choice(QUESTIONS), "stream": True}
    options = {"json": request, "stream": True, "catch_response": True}
    started = time.perf_counter()
    with user.tracked(STREAMED), user.send("POST", "/chat", STREAMED, **options) as response:
        if response.status_code != 200:
            return
        end = _follow(response, started, leave_after)
        response.request_meta["response_time"] = (time.perf_counter() - started) * 1000
        if end == "abandoned":
            response.stream.release()  # an unread body: closes the connection, so that the server sees the client go
            response.request_meta["name"] = ABANDONED_STREAM  # its duration is no whole answer's
            stream_events.fire(kind=ABANDONED, name=STREAMED, seconds=time.perf_counter() - started)
            response.success()
        elif end == "done":
            response.success()
        else:
            response.failure(end)


def _follow(response: ResponseContextManager, started: float, leave_after: int | None) -> str:
    """Read a stream to its end, or to its part number `leave_after`.

    Returns:
        "done", "abandoned", or what went wrong.
    """
    deltas = 0
    end = "the stream broke off"
    for event in _events(response):
        if event == "delta":
            deltas += 1
            if deltas == 1:
                stream_events.fire(kind=FIRST_TOKEN, name=STREAMED, seconds=time.perf_counter() - started)
            if deltas == leave_after:
                return "abandoned"
        elif event == "done":
            end = "done"
        elif event == "error":
            end = "the stream ended with an error event"
    return end


def _events(response: ResponseContextManager) -> Iterator[str]:
    """The names of the server-sent events, as they arrive, until the stream ends or breaks off."""
    # Locust does not count a request whose reader raises.
    with suppress(HTTPParseError, OSError):
        while block := response.stream.readline(b"\n\n"):
            for line in block.decode().splitlines():
                if line.startswith("event:"):
                    yield line[len("event:") :].strip()


TASKS: dict[str, Callable[[Any], None]] = {
    "browse": browse,
    "write": write,
    "chat": chat,
    "stream": stream,
    "abandon": abandon,
}


def configure(settings: Settings) -> type[SimulatedUser]:
    """The user class for one test."""
    return type(
        "User",
        (SimulatedUser,),
        {
            "abstract": False,
            "host": settings.host,
            "wait_time": between(settings.think_min, settings.think_max),
            "tasks": {TASKS[name]: weight for name, weight in settings.weights.items() if weight},
        },
    )
