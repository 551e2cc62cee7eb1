"""Load shapes: the number of users over the time of a run."""

import math

from loadtest.settings import Settings

STEPS = 10


def users_at(settings: Settings, elapsed: float) -> int | None:
    """How many users the shape asks for `elapsed` seconds into the run; None when the run is over.

    - steady, soak: all users after a tenth of the time (a minute at most), then level
    - ramp: from one user to all, evenly, over the whole time
    - spike: a fifth of the users, all of them in the middle fifth of the time, a fifth again
    - step: a tenth more users in each tenth of the time, to find the capacity
    """
    if elapsed >= settings.duration:
        return None
    share = elapsed / settings.duration
    match settings.shape:
        case "ramp":
            wanted = settings.users * share
        case "spike":
            wanted = settings.users if 0.4 <= share < 0.6 else settings.users / 5
        case "step":
            return users_of_step(settings, step_at(settings, elapsed))
        case _:
            wanted = settings.users * min(1.0, elapsed / min(settings.duration / 10, 60.0))
    return max(1, math.ceil(wanted))


def step_at(settings: Settings, elapsed: float) -> int:
    """The number of the step (from 0) that a `step` run is in; STEPS when the run is over."""
    return min(STEPS, int(elapsed / settings.duration * STEPS))


def users_of_step(settings: Settings, step: int) -> int:
    """How many users step number `step` (from 0) has."""
    return -(-settings.users * (step + 1) // STEPS)
