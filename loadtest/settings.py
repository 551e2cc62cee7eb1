"""Settings of a load test, from the environment (the Makefile passes its variables on)."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, TypeVar
from urllib.parse import urlsplit

N = TypeVar("N", int, float)

SHAPES = ("steady", "ramp", "spike", "soak", "step")
WEIGHTS = {"browse": 10, "write": 4, "chat": 2, "stream": 4, "abandon": 1}
MAX_USERS = 10_000
MAX_WORKERS = 64
MAX_DURATION = 24 * 3600.0


class SettingError(ValueError):
    """An unusable setting; the message names it and lists the allowed values."""


def duration_seconds(text: str) -> float:
    """Seconds of `90`, `90s`, `5m`, `1h30m`.

    Raises:
        ValueError: the text is not such a duration.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"not a duration: {text!r}")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return hours * 3600.0 + minutes * 60.0 + seconds


@dataclass(frozen=True)
class Settings:
    """One load test. Times are in seconds."""

    host: str = "http://127.0.0.1:8000"
    users: int = 20
    duration: float = 120.0
    shape: str = "steady"
    think_min: float = 0.5
    think_max: float = 2.5
    weights: Mapping[str, int] = field(default_factory=lambda: dict(WEIGHTS))
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9646
    linger: float = 20.0
    workers: int = 1
    master: str = ""
    master_port: int = 5557
    ui_port: int = 8089

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read HOST, USERS, DURATION, SHAPE, THINK (`min-max` seconds), WEIGHTS (`browse=10,chat=0,...`),
        LOCUST_METRICS_HOST, LOCUST_METRICS_PORT, LOADTEST_LINGER, WORKERS (processes), MASTER (`address` or
        `address:port` of the machine that leads workers of others) and LOCUST_PORT.

        Raises:
            SettingError: a value is not usable.
        """
        default = cls()

        def take(name: str, fallback: object) -> str:
            return environ.get(name) or str(fallback)

        app_port = _number("APP_PORT", take("APP_PORT", 8000), int, 1, 65535)
        host = _address(take("HOST", f"http://127.0.0.1:{app_port}"))
        shape = take("SHAPE", default.shape)
        if shape not in SHAPES:
            raise SettingError(f"SHAPE={shape}: choose one of {', '.join(SHAPES)}")
        try:
            duration = duration_seconds(take("DURATION", "1h" if shape == "soak" else "2m"))
        except ValueError:
            raise SettingError(f"DURATION={environ['DURATION']}: write it like 90s, 5m or 1h30m") from None
        if not 10 <= duration <= MAX_DURATION:
            raise SettingError(f"DURATION={environ.get('DURATION')}: from 10s to 24h")
        master, _, master_port = take("MASTER", "").partition(":")
        if not re.fullmatch(r"[\w.-]*", master, re.ASCII):
            raise SettingError(f"MASTER={master}: give an address of this network, such as 192.0.2.10")
        users = _number("USERS", take("USERS", default.users), int, 1, MAX_USERS)
        think = take("THINK", f"{default.think_min}-{default.think_max}").split("-")
        if len(think) != 2:
            raise SettingError("THINK: two numbers of seconds, such as 0.5-2.5")
        think_min, think_max = (_number("THINK", part, float, 0, 3600) for part in think)
        if think_min > think_max:
            raise SettingError("THINK: the smaller number of seconds comes first, such as 0.5-2.5")
        return cls(
            host=host,
            users=users,
            duration=duration,
            shape=shape,
            think_min=think_min,
            think_max=think_max,
            weights=_weights(environ.get("WEIGHTS", "")),
            metrics_host=take("LOCUST_METRICS_HOST", default.metrics_host),
            metrics_port=_number(
                "LOCUST_METRICS_PORT", take("LOCUST_METRICS_PORT", default.metrics_port), int, 1, 65535
            ),
            linger=_number("LOADTEST_LINGER", take("LOADTEST_LINGER", default.linger), float, 0, 300),
            workers=_number("WORKERS", take("WORKERS", default.workers), int, 1, MAX_WORKERS),
            master=master,
            master_port=_number("MASTER", master_port or str(default.master_port), int, 1, 65535),
            ui_port=_number("LOCUST_PORT", take("LOCUST_PORT", default.ui_port), int, 1, 65535),
        )


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number, an incomplete IPv6 address
        usable = False
    if not usable or re.search("[^!-~]", text):
        raise SettingError(f"HOST={text}: give the service's address, such as http://127.0.0.1:8000")
    return text.rstrip("/")


def _number(name: str, text: str, kind: type[N], low: float, high: float) -> N:
    try:
        value = kind(text)
    except ValueError:
        raise SettingError(f"{name}={text}: not a number") from None
    if not low <= value <= high:
        raise SettingError(f"{name}={text}: from {low:g} to {high:g}")
    return value


def _weights(text: str) -> dict[str, int]:
    weights = dict(WEIGHTS)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition("=")
        if name not in WEIGHTS:
            raise SettingError(f"WEIGHTS: {name!r} is not one of {', '.join(WEIGHTS)}")
        weights[name] = _number("WEIGHTS", weight, int, 0, 1000)
    if not any(weights.values()):
        raise SettingError("WEIGHTS: at least one weight must be above 0")
    return weights
