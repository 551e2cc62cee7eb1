"""More than a week of traffic: when it vanishes, and holidays. Recorded series, a sample every five minutes."""

from __future__ import annotations

from functools import partial

from .situations import harmless, situation
from .world import World

DAY = 24 * 60
HOURS = (5, 3, 2, 2, 3, 5, 12, 30, 55, 75, 88, 95, 98, 100, 100, 97, 92, 85, 72, 58, 42, 28, 16, 9)
in_days = partial(situation, step=300, alerts="HttpTrafficVanished")


def days(world: World, rate: float) -> None:
    """So many requests per second at 14:00, a fiftieth of it at 2:00, each day."""
    pieces = []
    for quarter in range(-(-int(world.minutes) // 15)):
        hour, part = divmod(quarter, 4)
        now, then = HOURS[hour % 24], HOURS[(hour + 1) % 24]
        pieces.append((min(15.0 * (quarter + 1), world.minutes), rate * (now + (then - now) * part / 4) / 100))
    # The rules record the average over five minutes from it.
    world.series['job_slo:requests:rate1m{slo="availability", job="days", service="days"}'] = list(pieces)


def visits(world: World, start: float, end: float, factor: float) -> None:
    world.scale(start, end, factor, "job_slo:requests:rate1m", job="days")


@in_days("at noon no request arrives any more", lasts=180, late=15, start=8 * DAY + 12 * 60)
def _(w: World, s: float, e: float) -> None:
    days(w, 20)
    visits(w, s, e, 0)


@in_days("at four in the morning the proxy breaks: no request arrives", lasts=420, late=300, start=8 * DAY + 240)
def _(w: World, s: float, e: float) -> None:
    days(w, 3)
    visits(w, s, e, 0)


@in_days("in the evening 4 % of the requests arrive", lasts=180, late=20, start=8 * DAY + 19 * 60)
def _(w: World, s: float, e: float) -> None:
    days(w, 200)
    visits(w, s, e, 0.04)


for percent in (8, 4, 2):

    @harmless(
        f"a holiday with {percent} % of the usual traffic",
        lasts=36 * 60,
        tail=0,
        start=8 * DAY - 120,
        step=300,
        alerts="HttpTrafficVanished",
    )
    def _(w: World, s: float, e: float, share: float = percent / 100) -> None:
        days(w, 50)
        for step in range(8):  # from ten in the evening on ever less
            visits(w, s + 30 * step, s + 30 * (step + 1), 1 - (1 - share) * (step + 1) / 8)
        visits(w, s + 240, e, share)
