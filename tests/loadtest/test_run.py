"""What a run's steps and its end say, by a clock of the test's own."""

from collections.abc import Callable

import pytest

from loadtest.record import Record
from loadtest.run import Run
from loadtest.settings import Settings
from loadtest.shapes import STEPS, users_at
from loadtest.verdict import Threshold

THRESHOLDS = {"default": Threshold(error_ratio=0.01, p95=0.5)}
LOOK = 0.5

Service = Callable[[float, int], tuple[int, int]]
"""What happens in a second of the run with so many users: requests answered, users who wait too long."""


class Driven:
    """A run of a hundred seconds with ten users, against a service with scripted behaviour."""

    def __init__(self, shape: str) -> None:
        self.now = 1000.0
        self.record = Record()
        self.settings = Settings(users=10, duration=100, shape=shape)
        self.run = Run(self.settings, THRESHOLDS, self.record, lambda: self.now)

    def drive(self, service: Service, seconds: float = 100) -> None:
        self.run.start()
        began = self.now
        while (elapsed := self.now - began) < seconds:
            self.record.users = users_at(self.settings, elapsed) or 0
            answered, waiting = service(elapsed, self.record.users)
            if elapsed % 1 == 0:
                for _ in range(answered):
                    self.record.count("GET", "/items", 0.02, None)
            self.now += LOOK
            self.run.look(waiting)
        self.run.stop()


def well(second: float, users: int) -> tuple[int, int]:
    return 2 * users, 0


def hangs(since: float) -> Service:
    return lambda second, users: (2 * users, 0) if second < since else (0, users)


def saturated(second: float, users: int) -> tuple[int, int]:
    """From the seventh step on, it is quick only to those it answers at all."""
    return (2 * users, 0) if users <= 6 else (4, 0)


def test_where_every_step_is_kept_the_limit_is_unknown() -> None:
    test = Driven("step")
    test.drive(well)
    assert [step.users for step in test.run.steps] == list(range(1, 11)), "the last step is judged, too"
    assert test.run.capacity().startswith("Capacity: at least 10 users, 20.0 requests/s. No step missed")
    assert test.run.report()[1]


@pytest.mark.parametrize(
    ("service", "users"),
    [
        (hangs(50), 5),  # from one step to the next
        (hangs(57), 5),  # within a step
        (saturated, 6),
        (lambda second, users: (20 if users == 1 else 3, 0), 1),
    ],
)
def test_the_capacity_ends_where_throughput_stops_growing(service: Service, users: int) -> None:
    test = Driven("step")
    test.drive(service)
    assert len(test.run.steps) == STEPS
    assert test.run.capacity().startswith(f"Capacity: {users} users, ")
    assert "was the most" in test.run.capacity()
    assert not test.run.report()[1], "where the limit was found, the run as a whole has failed"


def test_a_service_that_never_answers_has_no_capacity() -> None:
    test = Driven("step")
    test.drive(hangs(0))
    assert test.run.capacity() == "Capacity: even the first step missed a threshold."
    text, passed = test.run.report()
    assert not passed
    assert "no request completed" in text


def test_an_interrupted_run_reports_its_results_so_far() -> None:
    test = Driven("step")
    assert "unknown" in test.run.capacity()
    test.drive(well, seconds=35)
    text, passed = test.run.report()
    assert "Verdict: none, interrupted after 35 s of 100 s." in text
    assert not passed
    assert len(test.run.steps) == 3, "the fourth did not come to its end"
    assert test.run.capacity().startswith("Capacity: at least 3 users")


def test_a_step_is_judged_by_its_thresholds() -> None:
    test = Driven("step")

    def failing(second: float, users: int) -> tuple[int, int]:
        if users == 4 and second % 1 == 0:
            test.record.count("GET", "/items", 0.02, OSError())
        return 2 * users, 0

    test.drive(failing)
    assert test.run.capacity().startswith("Capacity: 3 users, 6.0 requests/s was the most")
    assert "GET /items: errors" in test.run.steps[3].missed[0]
    assert not test.run.steps[4].missed, "a step answers for itself"


def test_nothing_of_a_former_run_counts() -> None:
    test = Driven("step")
    test.drive(hangs(50))
    assert not test.run.report()[1]
    test.drive(well)
    assert len(test.run.steps) == STEPS
    text, passed = test.run.report()
    assert passed
    assert sum(finding.series.requests for finding in test.run.findings()) == 2 * 10 * sum(range(1, 11))
    assert "at least 10 users" in text


def test_users_who_wait_too_long_fail_a_run_in_which_nothing_fails() -> None:
    test = Driven("steady")
    test.drive(hangs(90))
    text, passed = test.run.report()
    assert not passed
    assert "beyond the p95 threshold for 11% of their time > 5%" in text
    assert not any(finding.missed for finding in test.run.findings())
    test.drive(hangs(97))
    assert test.run.report()[1], "a moment is forgiven"
    assert test.run.steps == []
