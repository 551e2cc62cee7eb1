"""Fifty restarts, and a disk that fills up: totals stay exact, nothing grows, no request notices."""

import json
from pathlib import Path

from tests.telemetry.serving import parse, value
from tests.telemetry.storage.command import run


def test_fifty_restarts(tmp_path: Path) -> None:
    """Half of them by SIGKILL: exact totals, never less than before, the same files and the same work for a scrape.

    Every scrape is made by a worker that has counted nothing itself; it and the master have slots, too.
    """
    folder = tmp_path / "metrics"
    states = [json.loads(line) for line in run("-m", "tests.telemetry.storage.restarts", folder=folder).splitlines()]
    assert len(states) == 50
    seen = 0.0
    for state in states:
        samples = parse(state["text"])
        assert value(samples, "counted_total", kind="work") == state["counted"]
        assert value(samples, "living") == 3
        assert value(samples, "seen_total", kind="once") >= seen
        seen = value(samples, "seen_total", kind="once")
    assert seen == 1 + sum(restart % 3 == 1 for restart in range(50))
    assert states[-1]["files"] == states[0]["files"] == ["schema", "service", *(f"worker-{slot}" for slot in range(5))]
    assert states[-1]["read"] == states[0]["read"]
    assert len(states[-1]["text"].splitlines()) == len(states[0]["text"].splitlines())


FULL_DISK = """
import asyncio, json, resource, sys
from httpx2 import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
{before}
from app.telemetry.http import PrometheusMiddleware, metrics_endpoint

def answer(request):
    return PlainTextResponse("fine")

async def main():
    app = Starlette(routes=[Route(f"/r{{n}}", answer) for n in range(400)] + [Route("/metrics", metrics_endpoint())])
    app.add_middleware(PrometheusMiddleware, exclude_paths=("/metrics",))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/r0")).status_code == 200
        {then}
        for number in range(400):
            assert (await client.get(f"/r{{number}}")).text == "fine"
        assert (await client.get("/r0")).status_code == 200
        print((await client.get("/metrics")).text)

asyncio.run(main())
"""
LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


def test_disk_full_while_serving(tmp_path: Path) -> None:
    """No file can grow any more: what has room goes on there, the rest in memory, and it is logged once."""
    code = FULL_DISK.format(before="", then=LIMIT.format(size=1 << 16))
    output = run("-c", code, folder=tmp_path / "metrics")
    text, _, log = output.partition("metrics: no space left")
    samples = parse(text)
    assert value(samples, "http_requests_total", endpoint="/r0") == 3
    assert value(samples, "http_requests_total", endpoint="/r399", worker="0") == 1
    assert value(samples, "http_requests_total") == 402
    assert value(samples, "http_request_duration_seconds_count") == 402
    assert value(samples, "telemetry_unshared_series") > 400
    assert output.count("metrics: no space left") == 1, log


def test_disk_full_from_the_start(tmp_path: Path) -> None:
    """Nothing can be shared: this process counts for itself, and says so."""
    code = FULL_DISK.format(before=LIMIT.format(size=1 << 16), then="pass")
    output = run("-c", code, folder=tmp_path / "metrics")
    text, _, log = output.partition("metrics of this process are not shared")
    samples = parse(text)
    assert value(samples, "http_requests_total") == 402
    assert value(samples, "http_requests_total", endpoint="/r399") == 1
    assert value(samples, "telemetry_unshared_series") > 400
    assert "File too large" in log
