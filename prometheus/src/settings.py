"""prometheus/slo.toml as checked values, for the rules, their unit tests and the dashboards.

    from prometheus.src.settings import SETTINGS

    SETTINGS.budget_days                            # 30, that the objectives are over
    SETTINGS.objectives["availability"].ratio       # 0.999, of requests over these days
    SETTINGS.objectives["availability"].budget      # 0.001, the share of bad requests that it bears
    SETTINGS.objectives["availability"].percent     # 99.9, for texts
    SETTINGS.latency_seconds                        # 0.5; .latency_le is "0.5", the bucket's label
    SETTINGS.start_seconds                          # 30.0; .start_le is "30.0"
    SETTINGS.streaming, SETTINGS.ignored            # regular expressions of endpoints
    SETTINGS.windows                                # tuple of Window(long="1h", short="5m", factor=14.4, ...)
    SETTINGS.page_factor                            # 14.4: the smallest burn rate over an hour or less that pages
    SETTINGS.thresholds["query_seconds"]            # 0.5, as in the file's table of that name

The objectives are recorded, too: a graph's line follows from `sightline:slo_objective:ratio{slo="availability"}`.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "slo.toml"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_BAD = 0.5
SHOWN = ("5m", "1h")  # burn rates that dashboards and runbooks show, whatever the alerts' windows are
MOST_PERCENT = 99.999  # 26 seconds in 30 days; less than that is a few scrapes
MIN_DAYS, MAX_DAYS = 7, 31  # of error budgets; PROMETHEUS_RETENTION_TIME is 32d
SEVERITIES = ("critical", "warning", "info")


class SettingsError(Exception):
    """slo.toml holds something that no rule can be made of; the message names the setting."""


def seconds(duration: str) -> int:
    """Seconds of a Prometheus duration of one unit, such as `30m`."""
    match = re.fullmatch(r"(\d+)([smhd])", duration)
    if not match:
        raise SettingsError(f"{duration!r} is no duration such as 5m, 6h or 3d")
    return int(match[1]) * UNITS[match[2]]


@dataclass(frozen=True)
class Objective:
    """A share of good requests over `Settings.budget_days`."""

    slo: str
    percent: float

    @property
    def ratio(self) -> float:
        return round(self.percent / 100, 10)

    @property
    def budget(self) -> float:
        """The share of bad requests that the objective bears."""
        return round(1 - self.ratio, 10)


@dataclass(frozen=True)
class Window:
    """One pair of windows of the burn-rate alerts."""

    long: str
    short: str
    factor: float
    severity: str
    min_bad_requests: float
    """Failures in the long window; slow responses: `Settings.least_bad`."""

    def limit(self, objective: Objective) -> float:
        """The burn rate that alerts: the factor, or less where that were more than half of the requests."""
        return min(self.factor, round(MOST_BAD / objective.budget, 6))


class Thresholds(dict[str, float]):
    """Name -> value; remembers which were read, as one that nothing reads is a mistake.

    Raises:
        SettingsError: the file lacks the one that is asked for.
    """

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__(values)
        self.unread = set(values)

    def __getitem__(self, name: str) -> float:
        self.unread.discard(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> float:
        raise SettingsError(f"thresholds.{name} is missing")


@dataclass(frozen=True)
class Settings:
    """Everything that slo.toml says."""

    budget_days: int
    """That the objectives and their error budgets are over."""
    objectives: dict[str, Objective]
    latency_seconds: float
    start_seconds: float
    streaming: str
    ignored: str
    min_bad_requests: float
    """Of slow responses, and of failures where a window has no number of its own."""
    windows: tuple[Window, ...]
    """The longest first."""
    thresholds: Thresholds

    @property
    def latency_le(self) -> str:
        """The bound as the label `le` spells it."""
        return str(self.latency_seconds)

    @property
    def start_le(self) -> str:
        return str(self.start_seconds)

    def least_bad(self, objective: Objective, window: Window) -> float:
        """The least number of bad requests in the long window that alerts."""
        return self.min_bad_requests if objective.slo == "latency" else window.min_bad_requests

    @property
    def page_factor(self) -> float:
        """The smallest burn rate that pages when it is kept up for an hour or less."""
        return min(
            (w.factor for w in self.windows if w.severity == "critical" and seconds(w.long) <= 3600),
            default=max(w.factor for w in self.windows),
        )

    @property
    def spans(self) -> list[str]:
        """Every window, long or short, that a burn rate is recorded for; the shortest first."""
        return sorted({*SHOWN, *(span for window in self.windows for span in (window.long, window.short))}, key=seconds)


def examples(regex: str) -> list[str]:
    """An endpoint for each alternative of a regular expression such as `/chat|/faults.*`, for the unit tests."""
    return [alternative.replace(".*", "/x").replace(".+", "/x") for alternative in regex.split("|")]


def load(text: str) -> Settings:
    """The settings in `text`, TOML as in slo.toml.

    Raises:
        SettingsError: the text is no TOML, a setting is missing or unknown, or its value can't be.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from None
    tables = ("objectives", "latency", "endpoints", "burn", "thresholds")
    if unknown := sorted(data.keys() - set(tables)):
        raise SettingsError(f"{unknown[0]} is unknown; the tables are {', '.join(tables)}")
    objectives = _table(data, "objectives", "window", "availability", "latency")
    latency = _table(data, "latency", "seconds", "streaming_start_seconds")
    endpoints = _table(data, "endpoints", "streaming", "ignored")
    burn = _table(data, "burn", "min_bad_requests", "windows")
    thresholds = _table(data, "thresholds")
    budget_days = _budget_days(objectives["window"])
    settings = Settings(
        budget_days=budget_days,
        objectives={slo: _objective(slo, objectives[slo]) for slo in ("availability", "latency")},
        latency_seconds=_number(latency["seconds"], "latency.seconds"),
        start_seconds=_number(latency["streaming_start_seconds"], "latency.streaming_start_seconds"),
        streaming=_regex(endpoints["streaming"], "endpoints.streaming"),
        ignored=_regex(endpoints["ignored"], "endpoints.ignored"),
        min_bad_requests=(min_bad := _number(burn["min_bad_requests"], "burn.min_bad_requests")),
        windows=_windows(burn["windows"], min_bad, budget_days),
        thresholds=Thresholds({name: _threshold(name, value) for name, value in thresholds.items()}),
    )
    for one, other in ((settings.streaming, settings.ignored), (settings.ignored, settings.streaming)):
        if both := [endpoint for endpoint in examples(one) if re.fullmatch(other, endpoint)]:
            raise SettingsError(f"endpoints: {both[0]} is both streaming and ignored")
    return settings


def _table(data: dict[str, Any], name: str, *keys: str) -> dict[str, Any]:
    """The table of this name, which has these keys and no others; any, if none are given."""
    table = data.get(name)
    if table is None:
        raise SettingsError(f"[{name}] is missing")
    return _with_keys(table, name, keys)


def _with_keys(table: Any, name: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SettingsError(f"{name} is {table!r}, and must be a table")
    if keys and (unknown := sorted(table.keys() - {*keys, *optional})):
        raise SettingsError(f"{name}.{unknown[0]} is unknown; it has {', '.join((*keys, *optional))}")
    if missing := [key for key in keys if key not in table]:
        raise SettingsError(f"{name}.{missing[0]} is missing")
    return table


def _objective(slo: str, value: Any) -> Objective:
    percent = _number(value, f"objectives.{slo}")
    if not 50 <= percent <= MOST_PERCENT:
        raise SettingsError(
            f"objectives.{slo} is {value}, and must be a percentage from 50 to {MOST_PERCENT}, such as 99.9"
        )
    return Objective(slo, percent)


def _budget_days(value: Any) -> int:
    span = _duration(value, "objectives.window")
    if span % UNITS["d"] or not MIN_DAYS <= span / UNITS["d"] <= MAX_DAYS:
        raise SettingsError(
            f"objectives.window is {value!r}, and must be {MIN_DAYS}d to {MAX_DAYS}d: Prometheus keeps {MAX_DAYS + 1}"
        )
    return span // UNITS["d"]


def _windows(entries: Any, min_bad_requests: float, budget_days: int) -> tuple[Window, ...]:
    if not isinstance(entries, list) or not entries:
        raise SettingsError(f"burn.windows is {entries!r}, and must be one or more tables [[burn.windows]]")
    windows = tuple(_window(entry, min_bad_requests) for entry in entries)
    spans = [seconds(window.long) for window in windows]
    if len(set(spans)) < len(spans):
        raise SettingsError("burn.windows: two have the same long window")
    if spans != sorted(spans, reverse=True):
        raise SettingsError("burn.windows: the longest comes first")
    if spans[0] >= budget_days * UNITS["d"]:
        raise SettingsError(f"burn.windows: {windows[0].long} is no shorter than objectives.window, {budget_days}d")
    return windows


def _window(entry: Any, min_bad_requests: float) -> Window:
    _with_keys(entry, "burn.windows", ("long", "short", "factor", "severity"), ("min_bad_requests",))
    spans = {name: _duration(entry[name], f"burn.windows.{name}") for name in ("long", "short")}
    for name, span in spans.items():
        if span % UNITS["m"]:
            raise SettingsError(f"burn.windows.{name} is {entry[name]!r}, and must be whole minutes: rates are of one")
    if spans["short"] >= spans["long"]:
        raise SettingsError(f"burn.windows: {entry['short']} is no shorter than {entry['long']}")
    if entry["severity"] not in SEVERITIES:
        raise SettingsError(f"burn.windows.severity is {entry['severity']!r}; it is one of {', '.join(SEVERITIES)}")
    return Window(
        entry["long"],
        entry["short"],
        _number(entry["factor"], "burn.windows.factor"),
        entry["severity"],
        _number(entry.get("min_bad_requests", min_bad_requests), "burn.windows.min_bad_requests"),
    )


def _duration(value: Any, name: str) -> int:
    if not isinstance(value, str):
        raise SettingsError(f'{name} is {value!r}, and must be a duration in quotes such as "5m", "6h" or "3d"')
    try:
        span = seconds(value)
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None
    if not span:
        raise SettingsError(f"{name} is {value!r}, and must be longer than nothing")
    return span


def _threshold(name: str, value: Any) -> float:
    number = _number(value, f"thresholds.{name}")
    if re.search(r"_ratio(_|$)", name) and number >= 1:
        raise SettingsError(f"thresholds.{name} is {value}, and must be a ratio below 1: 0.05 for 5 %")
    return number


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise SettingsError(f"{name} is {value!r}, and must be a number above 0")
    return float(value)


def _regex(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value or re.search(r"[\"'\\\s]", value):
        raise SettingsError(
            f"{name} is {value!r}, and must be a regular expression without quotes, backslashes, spaces"
        )
    try:
        plain = all(endpoint and re.fullmatch(value, endpoint) for endpoint in examples(value))
    except re.error as error:
        raise SettingsError(f"{name} is no regular expression: {error}") from None
    if not plain:
        raise SettingsError(
            f"{name} is {value!r}, and must be alternatives such as /chat|/v2/.+, plain but for .* and .+"
        )
    return value


try:
    SETTINGS = load(FILE.read_text(encoding="utf-8"))
except SettingsError as error:
    raise SystemExit(f"prometheus/slo.toml: {error}") from None
