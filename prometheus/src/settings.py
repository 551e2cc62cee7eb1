"""prometheus/slo.toml as checked values, for the rules, their unit tests and the dashboards.

    from prometheus.src.settings import SETTINGS

    SETTINGS.objectives["availability"].ratio       # 0.999, of requests over 30 days
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

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "slo.toml"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_BAD = 0.5
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
    """A share of good requests over 30 days."""

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


@dataclass(frozen=True)
class Settings:
    """Everything that slo.toml says."""

    objectives: dict[str, Objective]
    latency_seconds: float
    start_seconds: float
    streaming: str
    ignored: str
    min_bad_requests: float
    """Of slow responses, and of failures where a window has no number of its own."""
    windows: tuple[Window, ...]
    """The longest first."""
    thresholds: dict[str, float]

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
        return sorted({span for window in self.windows for span in (window.long, window.short)}, key=seconds)


def load(text: str) -> Settings:
    """The settings in `text`, TOML as in slo.toml.

    Raises:
        SettingsError: the text is no TOML, a setting is missing, or its value can't be.
    """
    try:
        data = tomllib.loads(text)
        return _settings(data)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from None
    except KeyError as error:
        raise SettingsError(f"{error.args[0]} is missing") from None


def _settings(data: dict[str, Any]) -> Settings:
    objectives = {slo: Objective(slo, _number(data["objectives"], slo)) for slo in ("availability", "latency")}
    for objective in objectives.values():
        if not 50 <= objective.percent < 100:
            raise SettingsError(f"objectives.{objective.slo} is a percentage from 50 to below 100, such as 99.9")
    min_bad_requests = _number(data["burn"], "min_bad_requests")
    windows = tuple(_window({"min_bad_requests": min_bad_requests, **entry}) for entry in data["burn"]["windows"])
    if list(windows) != sorted(windows, key=lambda window: -seconds(window.long)):
        raise SettingsError("burn.windows: the longest comes first")
    return Settings(
        objectives=objectives,
        latency_seconds=_number(data["latency"], "seconds"),
        start_seconds=_number(data["latency"], "streaming_start_seconds"),
        streaming=_regex(data["endpoints"], "streaming"),
        ignored=_regex(data["endpoints"], "ignored"),
        min_bad_requests=min_bad_requests,
        windows=windows,
        thresholds={name: _number(data["thresholds"], name) for name in data["thresholds"]},
    )


def _window(entry: dict[str, Any]) -> Window:
    window = Window(
        entry["long"], entry["short"], _number(entry, "factor"), entry["severity"], _number(entry, "min_bad_requests")
    )
    if seconds(window.short) >= seconds(window.long):
        raise SettingsError(f"burn.windows: {window.short} is no shorter than {window.long}")
    if window.severity not in SEVERITIES:
        raise SettingsError(f"burn.windows: severity is one of {', '.join(SEVERITIES)}")
    return window


def _number(table: dict[str, Any], name: str) -> float:
    value = table[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise SettingsError(f"{name} is {value!r}, and must be a number above 0")
    return float(value)


def _regex(table: dict[str, Any], name: str) -> str:
    value = table[name]
    if not isinstance(value, str) or not value or '"' in value or "\\" in value:
        raise SettingsError(f"{name} is {value!r}, and must be a regular expression without quotes and backslashes")
    try:
        re.compile(value)
    except re.error as error:
        raise SettingsError(f"{name} is no regular expression: {error}") from None
    return value


try:
    SETTINGS = load(FILE.read_text(encoding="utf-8"))
except SettingsError as error:
    raise SystemExit(f"prometheus/slo.toml: {error}") from None
