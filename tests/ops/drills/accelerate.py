"""The real configuration made fast by one mechanical transformation, so that a drill takes seconds.

Windows, offsets, predictions and ages are divided by WINDOWS, `for` and Alertmanager's waiting times by WAITING, and
scrape and evaluation intervals are set to one short interval; a sample stays valid for as many of them as ever. What
waits on `up` waits for several scrapes, as it does in earnest. Nothing else changes: not an expression, a threshold, a
label, a route. The ages are the thresholds that are a time themselves, or what adds up in a time; AGES names them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ops.servers import Server

WINDOWS = 60.0
WAITING = 360.0
INTERVAL = "1s"
LEAST = 3.0  # seconds of the shortest window, which needs several samples
# postgres_exporter takes three seconds to find out that PostgreSQL is gone: its job is slower, and so are the windows
# over its metrics, which need several samples each.
SLOW_JOB, SLOW_INTERVAL, SLOW_WINDOW = "postgres", "4s", 12.0
SCRAPE_TIMES = 15.0  # 15 s between scrapes became INTERVAL: what is compared with a scrape's duration shrinks with it
SCRAPES_MISSED = 6.0  # the least `for` of an alert on `up`: more than one scrape of the slow job

AGES = {
    "pg_stat_activity_max_tx_duration": WINDOWS,
    "scrape_duration_seconds": SCRAPE_TIMES,
    "job:llm_cost_usd:increase1h": WINDOWS,
    "count_over_time(up[": WINDOWS / SCRAPE_TIMES,  # scrapes in a time
}
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
DURATION = r"(?:\d+(?:ms|[smhdwy]))+"


def seconds(duration: str) -> float:
    """Seconds of a Prometheus duration such as `1h30m`."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def shorter(duration: str, factor: float, least: float = 0.0) -> str:
    """The duration divided, in milliseconds as Prometheus writes them, but not below `least` seconds."""
    return f"{max(round(seconds(duration) / factor * 1000), round(least * 1000))}ms"


def expression(text: str) -> str:
    """An expression with shorter windows, offsets and ages."""
    least = SLOW_WINDOW if "pg_" in text else LEAST
    text = re.sub(rf"(?<=\[)({DURATION})(?=[\]:])", lambda match: shorter(match[1], WINDOWS, least), text)
    text = re.sub(rf"(?<=:)({DURATION})(?=\])", lambda match: shorter(match[1], WINDOWS, 1.0), text)
    text = re.sub(rf"\boffset\s+({DURATION})", lambda match: f"offset {shorter(match[1], WINDOWS)}", text)
    text = re.sub(r"(predict_linear\(.*?\], )(\d+)\)", lambda match: f"{match[1]}{float(match[2]) / WINDOWS:g})", text)
    for metric, factor in AGES.items():
        if metric in text:
            text = re.sub(r"(?<=[<>]) *(\d+(?:\.\d+)?)\s*$", partial(_divided, factor), text)
    return text


def _divided(factor: float, threshold: re.Match[str]) -> str:
    return f" {float(threshold[1]) / factor:g}"


def rules(text: str) -> str:
    """A file of rules, made fast."""
    document = yaml.safe_load(text)
    for group in document["groups"]:
        group["interval"] = INTERVAL
        for rule in group["rules"]:
            rule["expr"] = expression(rule["expr"])
            on_up = bool(re.search(r"\bup\b", rule["expr"]))
            if "for" in rule:
                rule["for"] = shorter(rule["for"], *((SCRAPE_TIMES, SCRAPES_MISSED) if on_up else (WAITING,)))
            if "keep_firing_for" in rule:
                rule["keep_firing_for"] = shorter(rule["keep_firing_for"], WAITING)
    return yaml.safe_dump(document, sort_keys=False, width=10_000)


def prometheus(text: str) -> str:
    """prometheus.yml, made fast."""
    document = yaml.safe_load(text)
    document["global"] |= {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    for job in document["scrape_configs"]:
        assert not {"scrape_interval", "scrape_timeout"} & job.keys(), "a job of its own pace: what becomes of it?"
        if job["job_name"] == SLOW_JOB:
            job |= {"scrape_interval": SLOW_INTERVAL, "scrape_timeout": SLOW_INTERVAL}
    return yaml.safe_dump(document, sort_keys=False)


def alertmanager(text: str) -> str:
    """alertmanager.yml, made fast, with every route delivering to the receiver `webhook`."""
    document = yaml.safe_load(text)
    _route(document["route"])
    return yaml.safe_dump(document, sort_keys=False)


def _route(route: dict[str, Any]) -> None:
    route["receiver"] = "webhook"
    for key in ("group_wait", "group_interval", "repeat_interval"):
        if key in route:
            route[key] = shorter(route[key], WAITING, 0.0 if key == "group_wait" else 1.0)
    for child in route.get("routes", ()):
        _route(child)


def accelerated(server: Server) -> Server:
    """A server with a faster command line: what takes Prometheus minutes by default takes as many scrapes as ever."""
    if server.name != "prometheus":
        return server
    flags = {"--query.lookback-delta": "5m", "--rules.alert.resend-delay": "1m"}
    kept = (word for word in server.command if word.partition("=")[0] not in flags)
    return replace(server, command=(*kept, *(f"{flag}={shorter(time, SCRAPE_TIMES)}" for flag, time in flags.items())))


def accelerate(prometheus_folder: Path, alertmanager_folder: Path) -> None:
    """Put fast copies in the place of the links that native mode has made of the real files."""
    for file in sorted((prometheus_folder / "rules").glob("*.yml")):
        assert file.is_file()
    real_rules = (prometheus_folder / "rules").resolve()
    (prometheus_folder / "rules").unlink()
    (prometheus_folder / "rules").mkdir()
    for file in sorted(real_rules.glob("*.yml")):
        (prometheus_folder / "rules" / file.name).write_text(rules(file.read_text()))
    for file, change in (
        (prometheus_folder / "prometheus.yml", prometheus),
        (alertmanager_folder / "alertmanager.yml", alertmanager),
    ):
        text = change(file.read_text())
        file.unlink()
        file.write_text(text)
