"""Faults of services: targets that are lost, requests that fail or are slow, language models."""

from __future__ import annotations

from .situations import A, B, bucket_slow, down, fail, flap, situation, slow, traffic, vanished
from .world import World

# Targets


@situation("service down", late=5, tail=45)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="app")


@situation("service vanishes from discovery", late=6)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="app")


@situation("one of two instances down", late=6)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, job="app", instance=B)


@situation("host exporter vanishes", late=10)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="node", instance="n2.*")


@situation("database exporter vanishes", late=10)
def _(w: World, s: float, e: float) -> None:
    vanished(w, s, e, job="postgres")


@situation("database exporter down", late=10)
def _(w: World, s: float, e: float) -> None:
    down(w, s, e, instance="pg.*")


@situation("flapping: 75 s up, 75 s down", lasts=30, late=10)
def _(w: World, s: float, e: float) -> None:
    flap(w, s, e, every=2.5, minutes=1.25)


@situation("crash loop, faster than scrapes", lasts=20, late=8)
def _(w: World, s: float, e: float) -> None:
    for minute in range(int(s), int(e)):
        w.set(minute, w.minutes, 1000 + 60 * minute, "process_start_time_seconds", job="app", instance=A)


# HTTP


@situation("every request fails", late=4, tail=45)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("every request fails for three minutes", lasts=3, late=3)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1)


@situation("a fifth of the requests fails", late=6)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 0.2)


@situation("3 % of the requests fail", lasts=90, late=45)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 0.03)


@situation("one endpoint fails wholly", late=6)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1, endpoint="/reports")


@situation("2 % of one endpoint for hours", lasts=120, late=60)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 0.02, endpoint="/items", method="GET")


@situation("one method of an endpoint fails", late=6)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1, endpoint="/items", method="POST")


@situation("one instance fails", late=5)
def _(w: World, s: float, e: float) -> None:
    fail(w, s, e, 1, instance=B)


@situation("a canary with 1 % of the traffic fails wholly", late=8)
def _(w: World, s: float, e: float) -> None:
    traffic(w, 0, w.minutes, 0.02, instance=B)
    fail(w, s, e, 1, instance=B)


@situation("everything is slow", late=10, tail=45)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1)


@situation("a fifth of the responses is slow", lasts=90, late=60)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 0.2)


@situation("one endpoint with 5 % of the traffic is slow", late=10)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1, endpoint="/reports")


@situation("one method of an endpoint is slow", late=10)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1, endpoint="/items", method="POST")


@situation("one instance is slow", late=10)
def _(w: World, s: float, e: float) -> None:
    slow(w, s, e, 1, instance=B)


@situation("requests pile up", late=6)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 40, "http_requests_in_progress", instance=A, endpoint="/items|/reports")


@situation("streams of the model start late", late=10)
def _(w: World, s: float, e: float) -> None:
    for histogram in ("http_response_start_seconds", "llm_time_to_first_token_seconds"):
        bucket_slow(w, s, e, histogram, r"0\.1|0\.5|1\.0|5\.0")


@situation("file descriptors run out", late=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 950, "process_open_fds", instance=A)


@situation("scrapes get slow", late=10)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 8, "scrape_duration_seconds", instance=A)


# Language models


@situation("the model's provider is down", late=6)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0, "llm_requests_total", outcome="success")
    w.set(s, e, 0.25, "llm_requests_total", outcome="error")
    fail(w, s, e, 1, endpoint="/chat")


@situation("the provider limits the rate", late=8)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.1, "llm_retries_total", reason="rate_limit")


@situation("model responses are slow", late=12)
def _(w: World, s: float, e: float) -> None:
    bucket_slow(w, s, e, "llm_request_duration_seconds", r"0\.1|0\.5|1\.0|5\.0|30\.0")


@situation("answers break off", late=10)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0.7, "llm_requests_total", outcome="success")
    w.set(s, e, 0.075, "llm_requests_total", outcome="incomplete")


@situation("calls of a model hang", lasts=40, late=25)
def _(w: World, s: float, e: float) -> None:
    w.scale(s, e, 0, "llm_requests_total")
    w.set(s, e, 10, "llm_requests_in_progress")


@situation("a loop spends 60 dollars an hour, no history", lasts=40, late=15)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 60 / 3600 / 2, "llm_cost_usd_total")


@situation("usage is no longer returned", lasts=40, late=25)
def _(w: World, s: float, e: float) -> None:
    w.set(s, e, 0.2, "llm_usage_missing_total", reason="not_returned")
