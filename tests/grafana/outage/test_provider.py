"""The model's provider: it fails, it does not answer, its answers break off."""

from __future__ import annotations

import pytest

from tests.grafana.outage.stack import Stack
from tests.grafana.tiles import Tile
from tests.running import wait_until
from tests.telemetry.llm.fake_provider import Reply, openai_stream, openai_whole


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (429, "rate_limit_error")], ids=["refused", "rate limit"]
)
def test_a_provider_that_fails_is_failing_and_not_idle(stack: Stack, status: int, kind: str) -> None:
    stack.provider.replies = [Reply(status=status, body={"error": {"message": "no", "type": kind}})]
    with stack.users():
        failing = Tile(-1, "failing", "red")
        wait_until(lambda: stack.tile("overview", "Model p95") == failing)
        wait_until(lambda: stack.tile("llm", "Model p95") == failing)
        for dashboard in ("overview", "llm"):
            wait_until(lambda: stack.tile(dashboard, "LLM errors").colour == "red")  # noqa: B023  is called at once
        for title in ("TTFT p95", "TPOT p95"):
            wait_until(lambda: stack.tile("llm", title) == failing)  # noqa: B023  is called at once
    stack.provider.replies = [openai_whole()]
    with stack.users():
        wait_until(lambda: (stack.tile("llm", "Model p95").value or 0) > 0)


def test_a_provider_that_never_answers_is_waited_for_and_not_idle(stack: Stack) -> None:
    """Users leave after ten seconds, so that no call fails."""
    stack.provider.replies = [openai_whole(delay=3600)]
    waiting = Tile(-2, "waiting", "orange")
    with stack.users():
        for dashboard, title in (("overview", "Model p95"), ("llm", "Model p95"), ("llm", "TTFT p95")):
            wait_until(lambda: stack.tile(dashboard, title) == waiting)  # noqa: B023  is called at once
        wait_until(lambda: stack.tile("overview", "HTTP p95").text.startswith("≤ "))  # other endpoints answer


def test_answers_that_break_off_in_the_middle_are_failures(stack: Stack) -> None:
    """Each response has begun with 200, and none comes to its end."""
    stack.provider.replies = [openai_stream(finish_reason=None)]
    with stack.users(stream=True):
        for dashboard in ("overview", "llm"):
            wait_until(lambda: stack.tile(dashboard, "Model p95") == Tile(-1, "failing", "red"))  # noqa: B023
            wait_until(lambda: stack.tile(dashboard, "LLM errors").colour == "red")  # noqa: B023
    stack.provider.replies = [openai_whole()]
    with stack.users():
        wait_until(lambda: (stack.tile("llm", "Model p95").value or 0) > 0)
