"""What a drill reports of its alerts, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from ops.drills.target import Target
from ops.drills.watch import Watch

ALERT = "HttpEndpointFailing"


@dataclass
class Servers:
    """What Prometheus and Alertmanager answer now."""

    state: str = ""
    in_alertmanager: set[str] = field(default_factory=set)
    inhibited: set[str] = field(default_factory=set)

    def alerts(self) -> list[dict[str, Any]]:
        return [{"labels": {"alertname": ALERT, "severity": "warning"}, "state": self.state}] if self.state else []

    def active(self) -> set[str]:
        return self.in_alertmanager

    def muted(self) -> set[str]:
        return self.inhibited


def watched(servers: Servers, received: set[str] | None) -> tuple[Watch, list[str]]:
    steps: list[str] = []
    target = cast(Target, servers)
    deliver = None if received is None else lambda: received
    return Watch(target, lambda _, step, __: steps.append(step), deliver), steps


def test_delivered_means_received_by_a_receiver() -> None:
    servers, received = Servers(), set[str]()
    watch, steps = watched(servers, received)
    servers.state, servers.in_alertmanager = "firing", {ALERT}
    watch.look()
    assert steps == ["pending", "firing"]
    received.add(ALERT)
    watch.look()
    servers.state = ""
    watch.look()
    assert steps == ["pending", "firing", "delivered", "resolved"]


def test_without_a_receiver_nothing_is_called_delivered() -> None:
    servers = Servers()
    watch, steps = watched(servers, None)
    servers.state, servers.in_alertmanager = "firing", {ALERT}
    watch.look()
    assert steps == ["pending", "firing", "in Alertmanager"]


def test_an_alert_that_was_muted_and_is_sent_after_all_is_delivered() -> None:
    servers, received = Servers(), set[str]()
    watch, steps = watched(servers, received)
    servers.state, servers.inhibited = "firing", {ALERT}
    watch.look()
    assert watch.courses[ALERT].muted
    servers.inhibited, servers.in_alertmanager = set(), {ALERT}
    watch.look()
    assert watch.courses[ALERT].muted, "it has only been released; the message waits for its group"
    received.add(ALERT)
    watch.look()
    assert not watch.courses[ALERT].muted
    assert steps == ["pending", "firing", "muted", "delivered"]
