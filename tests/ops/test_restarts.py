"""How long supervisord waits before it starts again what keeps dying."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from supervisor import events
from supervisor.states import ProcessStates

from ops import restarts


@pytest.mark.attack("a server that keeps crashing")
def test_waits_do_not_grow_without_end() -> None:
    """supervisord waits a second longer than the number of failures that it remembers."""
    process = SimpleNamespace(backoff=84, config=None, group=None)
    restarts.bound(object())
    try:
        events.notify(events.ProcessStateBackoffEvent(process, ProcessStates.STARTING))
        assert process.backoff + 1 == 10
        process.backoff = 2
        events.notify(events.ProcessStateBackoffEvent(process, ProcessStates.STARTING))
        assert process.backoff == 2
    finally:
        events.clear()
