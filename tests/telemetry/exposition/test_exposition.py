"""What /metrics says, and how it is asked: read back with prometheus_client's parsers and with promtool."""

import asyncio
import gzip
import json
import os
import subprocess
import sys
import threading
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ops import programs
from tests.telemetry.serving import ROOT, UVICORN, Served, serve, value

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "token"
    path.write_text("first-token\n")
    return path


@pytest.fixture(scope="module")
def server(token_file: Path) -> Iterator[Served]:
    with serve(*UVICORN, "tests.telemetry.sample:app", environment={"SAMPLE_TOKEN_FILE": str(token_file)}) as served:
        served.get("/items/1", {"x-trace": "4bf92f3577b34da6"})
        served.get("/work/a%22%5C%25b")
        yield served


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def test_text_is_the_default(server: Served) -> None:
    body, headers = server.get("/metrics")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(headers["content-length"]) == len(body)
    families = {family.name: family for family in parse_text(body.decode())}
    assert families["http_requests"].type == "counter"
    assert families["http_request_duration_seconds"].type == "histogram"
    assert families["process_cpu_seconds"].samples[0].labels == {}  # alone in its process, as everywhere
    assert value(server.samples(), "work_total", kind='a"\\%b') == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("text/plain; version=1.0.0; escaping=allow-utf-8", "text/plain; version=1.0.0; charset=utf-8; escaping="),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0",
        ),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=2.0.0", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=3.1", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=0.0.1", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text; version=2.0.0, application/openmetrics-text; version=1.0.0; q=0.9",
            "application/openmetrics-text; version=1.0.0",
        ),
        (
            "application/openmetrics-text;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.7",
            "text/plain; version=0.0.4",
        ),
        ("application/openmetrics-text;version=1.0.0;q=0", "text/plain; version=0.0.4"),
        ('Application/OpenMetrics-Text; version="1.0.0"', "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (";;q=x,,", "text/plain; version=0.0.4"),
    ],
)
def test_negotiation(server: Served, accept: str, content_type: str) -> None:
    body, headers = server.get("/metrics", {"accept": accept})
    assert headers["content-type"].startswith(content_type)
    text = body.decode()
    if content_type.startswith("application"):
        assert text.endswith("\n# EOF\n")
        list(parse_openmetrics(text))  # type: ignore[no-untyped-call]
    else:
        assert "# EOF" not in text
        list(parse_text(text))


def test_exemplars_in_openmetrics(server: Served) -> None:
    text = server.get("/metrics", {"accept": OPENMETRICS})[0].decode()
    families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    for family, sample_name in (
        ("http_request_duration_seconds", "http_request_duration_seconds_bucket"),
        ("http_requests", "http_requests_total"),
    ):
        found = [s.exemplar for s in families[family].samples if s.name == sample_name and s.exemplar]
        assert [exemplar.labels for exemplar in found] == [{"trace_id": "4bf92f3577b34da6"}]
        assert found[0].timestamp is not None
    assert "4bf92f3577b34da6" not in server.text()


def test_gzip(server: Served) -> None:
    body, headers = server.get("/metrics", {"accept-encoding": "gzip"})
    assert headers["content-encoding"] == "gzip"
    assert int(headers["content-length"]) == len(body)
    assert "http_requests_total" in gzip.decompress(body).decode()


def test_names(server: Served) -> None:
    text = server.get("/metrics?name[]=work_total&name[]=times_seconds&name[]=http_request_duration_seconds_sum")[0]
    families = {family.name: family for family in parse_text(text.decode())}
    assert families.keys() == {"work", "times_seconds", "http_request_duration_seconds"}
    assert {s.name for s in families["http_request_duration_seconds"].samples} == {"http_request_duration_seconds_sum"}
    assert {s.name for s in families["times_seconds"].samples} == {
        f"times_seconds_{s}" for s in ("bucket", "sum", "count")
    }
    assert server.get("/metrics?name[]=none")[0] == b""


def test_a_route_and_not_a_mount(server: Served) -> None:
    status, _ = server.send("GET", "/metrics")
    assert status == 200
    assert server.send("POST", "/metrics")[0] == 405
    assert server.send("HEAD", "/metrics")[0] == 200


def test_promtool_finds_nothing_wrong(server: Served) -> None:
    """But what it says of Python's own metrics, and of names that the tests gave."""
    ours = "\n".join(
        line
        for line in server.text().splitlines()
        if not line.removeprefix("# ").split(" ", 1)[-1].startswith("python_")
    )
    checked = subprocess.run(
        [programs.find("promtool")["promtool"], "check", "metrics"], input=ours + "\n", capture_output=True, text=True
    )
    complaints = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith(("http_", "app_"))]
    assert complaints == []
    assert checked.returncode in (0, 3), checked.stderr  # 3: lint only; anything else is no valid text


def test_token(server: Served, token_file: Path) -> None:
    def ask(**headers: str) -> int:
        return status_of(lambda: server.get("/guarded-metrics", headers))

    assert ask() == 401
    assert ask(authorization="Bearer wrong") == 401
    assert ask(authorization="Basic first-token") == 401
    assert ask(authorization="Bearer first-token") == 200
    assert ask(authorization="bearer first-token") == 200
    replacement = token_file.with_suffix(".new")
    replacement.write_text("second-token")
    replacement.rename(token_file)
    assert ask(authorization="Bearer first-token") == 401
    assert ask(authorization="Bearer second-token") == 200
    token_file.write_text("")
    assert ask(authorization="Bearer ") == 503
    token_file.unlink()
    assert ask(authorization="Bearer second-token") == 503


def run(code: str, **environment: str) -> str:
    """What a Python program in a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prometheus_client_sees_no_difference() -> None:
    """Its own metrics, its own tools, with our storage under them: the same text as without, in all formats."""
    code = """
{install}
import json, time
time.time = lambda: 1700000000.0
import prometheus_client as p
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
p.disable_created_metrics()
registry = p.CollectorRegistry()
c = p.Counter("c", 'quotes " and \\\\ and\\nline', ["a", "b"], registry=registry)
c.labels("x", "y").inc(); c.labels('"\\n\\\\', "%s%%").inc(2.5, {{"trace_id": "1"}}); c.labels("gone", "z").inc()
c.remove("gone", "z")
g = p.Gauge("g", "g", registry=registry); g.set(-1.5); g.inc(3); g.dec()
f = p.Gauge("f", "f", ["l"], registry=registry); f.labels("1").set_function(lambda: 42); f.labels("2").set(7)
s = p.Summary("s", "s", ["l"], registry=registry, unit="seconds"); s.labels("1").observe(0.25)
h = p.Histogram("h", "h", ["l"], registry=registry, buckets=(0.1, 1, 10))
for v in (0.1, 0.5, 1, 99): h.labels("1").observe(v, {{"trace_id": str(v)}})
n = p.Histogram("n", "n", registry=registry, buckets=(-1, 1)); n.observe(-5)
p.Info("i", "i", registry=registry).info({{"version": "1"}})
p.Enum("e", "e", states=["on", "off"], registry=registry).state("off")
again = p.CollectorRegistry()
p.Counter("c", "of another registry", ["a", "b"], registry=again).labels("x", "y").inc(100)
cleared = p.Gauge("cleared", "k", ["l"], registry=registry)
cleared.labels("1").set(1); cleared.clear(); cleared.labels("2").set(2)
texts = p.generate_latest(registry), openmetrics(registry), p.generate_latest(again)
print(json.dumps([text.decode() for text in texts]))
"""
    ours = json.loads(run(code.format(install="from app.telemetry import exposition")))
    theirs = json.loads(run(code.format(install="")))
    assert ours == theirs


def test_one_renderer_for_all() -> None:
    """render() says the same as prometheus_client, parsed, for metrics of both kinds of definition."""
    output = run("""
from app.telemetry import exposition
import prometheus_client as p
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
from prometheus_client.openmetrics.exposition import generate_latest
for collector in list(p.REGISTRY._collector_to_names): p.REGISTRY.unregister(collector)
c = p.Counter("c", 'quotes " and \\\\', ["a"])
c.labels('"\\n\\\\%d').inc(2.5, {"trace_id": "q-1"}); c.labels("é\\U0001f600").inc()
g = p.Gauge("g", "g"); g.set(-1.5e300)
f = p.Gauge("f", "f"); f.set_function(lambda: 42)
for number in ("nan", "inf", "1e16", "0.30000000000000004"):
    p.Gauge("g_" + number[0], "n").set(float(number))
p.Summary("s_seconds", "s", ["l"], unit="seconds").labels("1").observe(0.25)
h = p.Histogram("h", "h", ["l"], buckets=(0.1, 1, 10))
for v in (0.1, 0.5, 1, 99): h.labels("1").observe(v, {"trace_id": str(v)})
p.Info("i", "i").info({"version": "1"})
shared = exposition.SharedMetric("histogram", "shared", "shared")
start = exposition.storage.group(shared.family(("l",), (1.0, 2.0)), ("x",))
exposition.storage.cells[start + 1] = 3.5; exposition.storage.cells[start + 3] = 2.0
r2 = p.CollectorRegistry(); p.Counter("twice", "t", registry=r2).inc(5); p.Counter("twice", "t").inc(2)
ours = exposition.render(accept="application/openmetrics-text; version=1.0.0").decode()
def flat(text):
    return {family.name: (family.type, family.unit, family.documentation, sorted(map(sample, family.samples)))
            for family in parse(text)}
def sample(s):
    exemplar = s.exemplar and (s.exemplar.labels, s.exemplar.value)
    return s.name, tuple(sorted(s.labels.items())), repr(float(s.value)), repr(exemplar)
mine, theirs = flat(ours), flat(generate_latest(p.REGISTRY).decode())
for name in theirs: assert mine[name] == theirs[name], (mine[name], theirs[name])
assert mine.keys() == theirs.keys()
print(len(mine))
""")
    assert int(output) == 12


def test_names_that_need_quotes() -> None:
    """prometheus_client takes dots and more in names: the text is its own encoder's, the numbers are all workers'."""
    code = """
import json, os, tempfile
if {workers}: os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()
from app.telemetry import exposition
import prometheus_client as p
for collector in list(p.REGISTRY._collector_to_names): p.REGISTRY.unregister(collector)
p.Counter("my.counter", "a").inc(2); p.Counter("plain", "b", ["my.label", "other-label"]).labels("x%s", 'y"').inc(3)
p.Histogram("my.seconds", "c", ["a.b"], buckets=(1, 2)).labels("z").observe(1.5); p.Summary("my.sum", "d").observe(4)
p.Gauge("my.gauge", "e", multiprocess_mode="livemax").set(5)
from prometheus_client.exposition import choose_encoder
accepted = [f"{{type}}; version=1.0.0; escaping={{escaping}}" for type in ("text/plain", "application/openmetrics-text")
            for escaping in ("allow-utf-8", "underscores", "dots", "values")] + [""]
expected = [choose_encoder(accept)[0](p.REGISTRY).decode() for accept in accepted]
filtered = exposition.render(names=["my_counter_total"]).decode()
if {workers} and os.fork():
    os.wait()
else:  # where there are workers, one that has counted nothing itself
    print(json.dumps([expected, [exposition.render(accept=accept).decode() for accept in accepted], filtered]))
"""
    for workers in (False, True):
        expected, found, filtered = json.loads(run(code.format(workers=workers)))
        assert found == expected
        assert filtered.splitlines()[-1] == "my_counter_total 2.0"
        assert '{"my.counter_total"} 2.0\n' in found[0]
        list(parse_text(found[-1]))


def test_threads_lose_nothing() -> None:
    """A number is changed in one step: no thread can come between reading and writing it."""
    output = run("""
import sys, threading
sys.setswitchinterval(1e-6)
from app.telemetry import exposition
from prometheus_client import Counter, Histogram
counter, histogram = Counter("c", "c"), Histogram("h", "h", buckets=(1, 2))
def work():
    for _ in range(50_000):
        counter.inc()
        histogram.observe(1.5)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*exposition.render(names=["c_total", "h_bucket", "h_sum"]).decode().splitlines(), sep="\\n")
""")
    assert "c_total 200000\n" in output
    assert 'h_bucket{le="2.0"} 200000\n' in output
    assert "h_sum 300000.0\n" in output


async def test_scrapes_share_one_rendering() -> None:
    """Those that come while one works get one text between them, begun after they came; too many are refused."""
    from httpx2 import ASGITransport, AsyncClient
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily
    from starlette.applications import Starlette
    from starlette.routing import Route

    import app.telemetry.http as telemetry

    class Rendered:
        times = 0
        may_go_on = threading.Event()

        def collect(self) -> Iterator[GaugeMetricFamily]:
            assert self.may_go_on.wait(60)
            self.times += 1
            for number in range(200):
                yield GaugeMetricFamily(f"g{number}", "g", value=self.times)

    rendered, registry = Rendered(), CollectorRegistry()
    rendered.may_go_on.set()
    registry.register(rendered)
    application = Starlette(routes=[Route("/metrics", telemetry.metrics_endpoint(registry=registry))])
    async with AsyncClient(transport=ASGITransport(application), base_url="http://test") as client:
        answers = await asyncio.gather(*(client.get("/metrics") for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert rendered.times <= 3
        assert "g1 1.0\n" in answers[0].text
        assert answers[9].text == answers[8].text

        # A collector that takes its time keeps the others waiting, and not the event loop.
        rendered.may_go_on.clear()
        asking = [asyncio.create_task(client.get("/metrics")) for _ in range(100)]
        for _, refused in zip(range(84), asyncio.as_completed(asking), strict=False):
            await refused
        rendered.may_go_on.set()
        answers = await asyncio.gather(*asking)
        assert Counter(answer.status_code for answer in answers) == {503: 84, 200: 16}


async def test_where_collectors_work() -> None:
    """A gauge's function may ask the event loop, as with prometheus_client; a collector of one's own has a thread."""
    from httpx2 import ASGITransport, AsyncClient
    from prometheus_client import CollectorRegistry, Gauge
    from prometheus_client.core import GaugeMetricFamily
    from starlette.applications import Starlette
    from starlette.routing import Route

    import app.telemetry.http as telemetry

    class Threads:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            yield GaugeMetricFamily("elsewhere", "e", value=threading.current_thread() is not threading.main_thread())

    registry = CollectorRegistry()
    registry.register(Threads())
    tasks = Gauge("tasks", "t", registry=registry)
    tasks.set_function(lambda: len(asyncio.all_tasks()))
    application = Starlette(routes=[Route("/metrics", telemetry.metrics_endpoint(registry=registry))])
    async with AsyncClient(transport=ASGITransport(application), base_url="http://test") as client:
        lines = (await client.get("/metrics")).text.splitlines()
    assert "elsewhere 1.0" in lines
    assert float(next(line for line in lines if line.startswith("tasks ")).split()[1]) >= 1
