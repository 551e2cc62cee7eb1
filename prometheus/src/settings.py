"""prometheus/slo.toml as checked values, for the rules, their unit tests and the dashboards.

    from prometheus.src.settings import SETTINGS

    SETTINGS.budget_days                            # 30, the window of the objectives
    SETTINGS.objectives["availability"].ratio       # 0.999, of requests over these days
    SETTINGS.objectives["availability"].budget      # 0.001, the allowed ratio of bad requests
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
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

FILE = Path(__file__).resolve().parent.parent / "slo.toml"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_BAD = 0.5
SHOWN = ("5m", "1h")  # burn rates that dashboards and runbooks show, whatever the alerts' windows are
MOST_PERCENT = 99.999  # 26 seconds in 30 days; less than that is a few scrapes
MIN_DAYS, MAX_DAYS = 7, 31  # of error budgets; PROMETHEUS_RETENTION_TIME is 32d


class SettingsError(Exception):
    """slo.toml holds something that no rule can be made of; the message has a line for each mistake."""


def seconds(duration: str) -> int:
    """Seconds of a Prometheus duration of one unit, such as `30m`.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+)([smhd])", duration)
    if not match:
        raise ValueError("must be a duration such as 5m, 6h or 3d")
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
        """The ratio of bad requests that the objective allows."""
        return round(1 - self.ratio, 10)


class Thresholds(dict[str, float]):
    """Name -> value; records which were read, as a threshold that no rule reads is a mistake.

    Raises:
        SettingsError: the file does not have the threshold.
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
    """The content of slo.toml."""

    budget_days: int
    """The window of the objectives and their error budgets, in days."""
    objectives: dict[str, Objective]
    latency_seconds: float
    start_seconds: float
    streaming: str
    ignored: str
    min_bad_requests: float
    """For slow responses, and for failures if a window does not set its own number."""
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
        """The minimum number of bad requests in the long window for an alert."""
        return self.min_bad_requests if objective.slo == "latency" else window.min_bad_requests

    @property
    def page_factor(self) -> float:
        """The smallest burn rate that pages if it lasts for an hour or less."""
        return min(
            (w.factor for w in self.windows if w.severity == "critical" and seconds(w.long) <= 3600),
            default=max(w.factor for w in self.windows),
        )

    @property
    def spans(self) -> list[str]:
        """All windows, long and short, for which a burn rate is recorded; the shortest first."""
        return sorted({*SHOWN, *(span for window in self.windows for span in (window.long, window.short))}, key=seconds)


def examples(regex: str) -> list[str]:
    """An endpoint for each alternative of a regular expression such as `/chat|/faults.*`, for the unit tests."""
    return [alternative.replace(".*", "/x").replace(".+", "/x") for alternative in regex.split("|")]


def _percent(value: float) -> float:
    if not 50 <= value <= MOST_PERCENT:
        raise ValueError(f"must be a percentage from 50 to {MOST_PERCENT}, such as 99.9")
    return value


def _minutes(duration: str) -> str:
    if not seconds(duration) or seconds(duration) % 60:
        raise ValueError("must be whole minutes, as rates are of one")
    return duration


def _days(duration: str) -> str:
    if seconds(duration) not in range(MIN_DAYS * UNITS["d"], MAX_DAYS * UNITS["d"] + 1, UNITS["d"]):
        raise ValueError(f"must be {MIN_DAYS}d to {MAX_DAYS}d; Prometheus keeps {MAX_DAYS + 1}")
    return duration


def _alternatives(regex: str) -> str:
    plain = not re.search(r"[\"'\\\s]", regex)
    try:
        plain = plain and all(endpoint and re.fullmatch(regex, endpoint) for endpoint in examples(regex))
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if not plain:
        raise ValueError("must be alternatives such as /chat|/v2/.+, plain but for .* and .+")
    return regex


def _thresholds(values: dict[str, float]) -> dict[str, float]:
    for name, value in values.items():
        if re.search(r"_ratio(_|$)", name) and value >= 1:
            raise ValueError(f"{name} is {value:g}, and must be a ratio below 1: 0.05 for 5 %")
    return values


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, AfterValidator(_percent)]
Minutes = Annotated[str, AfterValidator(_minutes)]
Days = Annotated[str, AfterValidator(_days)]
Endpoints = Annotated[str, AfterValidator(_alternatives)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Objectives(_Table):
    window: Days
    availability: Percent
    latency: Percent


class _Latency(_Table):
    seconds: Positive
    streaming_start_seconds: Positive


class _Endpoints(_Table):
    streaming: Endpoints
    ignored: Endpoints

    @model_validator(mode="after")
    def _are_apart(self) -> Self:
        for one, other in ((self.streaming, self.ignored), (self.ignored, self.streaming)):
            if both := [endpoint for endpoint in examples(one) if re.fullmatch(other, endpoint)]:
                raise ValueError(f"{both[0]} is both streaming and ignored")
        return self


class Window(_Table):
    """One pair of windows of the burn-rate alerts."""

    long: Minutes
    short: Minutes
    factor: Positive
    severity: Literal["critical", "warning", "info"]
    min_bad_requests: Positive = 0  # validated only where it is set; 0: the general one
    """Failures in the long window; slow responses: `Settings.least_bad`."""

    @model_validator(mode="after")
    def _is_long(self) -> Self:
        if seconds(self.short) >= seconds(self.long):
            raise ValueError(f"{self.short} is no shorter than {self.long}")
        return self

    def limit(self, objective: Objective) -> float:
        """The burn rate that alerts: the factor, capped at half of the requests being bad."""
        return min(self.factor, round(MOST_BAD / objective.budget, 6))


class _Burn(_Table):
    min_bad_requests: Positive
    windows: list[Window]

    @model_validator(mode="after")
    def _longest_first(self) -> Self:
        if not self.windows:
            raise ValueError("at least one table [[burn.windows]] is needed")
        longs = [seconds(window.long) for window in self.windows]
        if longs != sorted(set(longs), reverse=True):
            raise ValueError("the longest window comes first, and no two have the same length")
        for window in self.windows:
            window.min_bad_requests = window.min_bad_requests or self.min_bad_requests
        return self


class _File(_Table):
    """slo.toml, table by table."""

    objectives: _Objectives
    latency: _Latency
    endpoints: _Endpoints
    burn: _Burn
    thresholds: Annotated[dict[str, Positive], AfterValidator(_thresholds)]

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        budget, longest = self.objectives.window, self.burn.windows[0].long
        if seconds(longest) >= seconds(budget):
            raise ValueError(f"burn.windows: {longest} is no shorter than objectives.window, {budget}")
        return self


SENTENCES = {"missing": "is missing", "extra_forbidden": "is unknown", "model_type": "must be a table"}


def _sentence(problem: Any) -> str:
    """What is wrong with which setting, and its value if that is one."""
    name = ".".join(part for part in problem["loc"] if isinstance(part, str))
    if problem["type"] in SENTENCES:
        return f"{name} {SENTENCES[problem['type']]}"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
    value = "" if isinstance(problem["input"], dict | list | BaseModel) else f" is {problem['input']!r}"
    return f"{name}{value}: {message}".removeprefix(": ")


def load(text: str) -> Settings:
    """The settings in `text`, TOML as in slo.toml.

    Raises:
        SettingsError: the text is not TOML, or a setting is missing, unknown or invalid.
    """
    try:
        file = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from None
    except ValidationError as error:
        raise SettingsError(
            "\n".join(map(_sentence, sorted(error.errors(), key=lambda problem: len(problem["loc"]))))
        ) from None
    objectives, burn = file.objectives, file.burn
    return Settings(
        budget_days=seconds(objectives.window) // UNITS["d"],
        objectives={slo: Objective(slo, getattr(objectives, slo)) for slo in ("availability", "latency")},
        latency_seconds=file.latency.seconds,
        start_seconds=file.latency.streaming_start_seconds,
        streaming=file.endpoints.streaming,
        ignored=file.endpoints.ignored,
        min_bad_requests=burn.min_bad_requests,
        windows=tuple(burn.windows),
        thresholds=Thresholds(file.thresholds),
    )


try:
    SETTINGS = load(FILE.read_text(encoding="utf-8"))
except SettingsError as error:
    raise SystemExit("\n".join(f"prometheus/slo.toml: {mistake}" for mistake in str(error).splitlines())) from None
