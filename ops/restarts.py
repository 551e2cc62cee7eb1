"""A plugin of supervisord: servers that keep crashing are restarted every ten seconds.

By itself supervisord waits a second longer each time, without end, and so notices ever later that a cause is gone.
"""

from __future__ import annotations

from typing import Any

from supervisor import events

LONGEST_WAIT = 10  # seconds


def bound(supervisord: object) -> object:
    """Called while supervisord starts; a plugin may have calls of its own, and this one has none."""
    events.subscribe(events.ProcessStateBackoffEvent, _forget)
    return object()


def _forget(event: Any) -> None:
    """`backoff` is how often it has failed; the next wait is a second longer than this."""
    event.process.backoff = min(event.process.backoff, LONGEST_WAIT - 1)
