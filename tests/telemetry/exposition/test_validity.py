"""Nothing that an application defines makes the text invalid: read by Prometheus' own parser, strictly."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ops.programs import find
from tests.telemetry.serving import ROOT

SERVICES = 30
LABEL = re.compile(r'(?:\w+|"[^"]*")="(?:[^"\\]|\\.)*"')  # name and value; a name that is not plain is quoted


def test_random_metrics_in_two_workers(tmp_path: Path, summarize: Callable[[str, str], None]) -> None:
    """Each kind of metric, with names and labels that collide with each other, with ours and between the workers."""
    first = 0 if os.environ.get("CI") else random.randrange(1_000_000)  # other seeds are for who can look into them
    summarize("validity of /metrics", f"{SERVICES} services of two workers with random metrics, seeds from {first} on")
    command = [
        sys.executable,
        "-m",
        "tests.telemetry.exposition.applications",
        str(tmp_path),
        str(first),
        str(SERVICES),
    ]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    promtool = find("promtool")["promtool"]
    texts = sorted(tmp_path.glob("*-text"))
    assert len(texts) == 3 * SERVICES
    for path in texts:
        text = path.read_bytes().decode()
        checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
        assert checked.returncode in (0, 3), f"{path.name}: {checked.stderr}"  # 3: lint; anything else is no valid text
        series = [line.rpartition(" ")[0] for line in text.split("\n") if line and not line.startswith("#")]
        keys = [(name.partition("{")[0], frozenset(LABEL.findall(name))) for name in series]
        assert len(set(keys)) == len(keys), f"{path.name}: {sorted(k for k in keys if keys.count(k) > 1)}"


OWN = """
import os, tempfile
os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()
from app.telemetry import exposition
import prometheus_client as p
p.Info("build", "b").info({"v": "1"}); p.Enum("mode", "m", states=["on"]); p.Gauge("asked", "a").set_function(lambda: 1)
p.Counter("shared", "s").inc(); p.Counter("labelled", "l", ["l"])
p.Gauge("busy", "b", ["worker"]).labels("mine").set(2)
class Fails:
    def describe(self): return []
    def collect(self): raise LookupError("a test")
fails = Fails()
p.REGISTRY.register(fails)
for _ in range(2):
    print(exposition.render().decode())
p.REGISTRY.unregister(fails)
p.generate_latest(), p.generate_latest()
"""


def test_what_is_not_shared_is_logged_once() -> None:
    """And a collector that fails takes nothing else along."""
    done = subprocess.run([sys.executable, "-c", OWN], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "LookupError" in done.stderr
    for name in ("build", "mode", "asked"):
        assert done.stderr.count(f"/metrics: {name} is not shared between workers") == 1
    assert done.stderr.count("is not shared between workers") == 3
    assert done.stderr.count("Fails failed; its metrics are missing") == 1
    assert done.stderr.count("covers this process only") == 1
    for line in ("shared_total 1", 'build_info{v="1"} 1.0', "asked 1.0", 'busy{worker="mine",telemetry_worker="0"} 2'):
        assert done.stdout.count(f"{line}\n") == 2


COLLECTORS = """
from app.telemetry import exposition
from app.telemetry.http import PrometheusMiddleware
import prometheus_client as p
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
p.Counter("mine", "m").inc()
kept = GaugeMetricFamily("kept", "k", labels=["a"])
for value in (1, 2):
    kept.add_metric(["x"], value)
more = GaugeMetricFamily("kept", "k", labels=["a"])
more.add_metric(["y"], 3)
class Collector:
    def describe(self): return []
    def collect(self):
        yield from (kept, more)
        yield from (CounterMetricFamily("mine", "m", value=9), GaugeMetricFamily("mine_total", "m", value=9))
        yield from (GaugeMetricFamily(name, "g", value=9) for name in ("process_open_fds", "http_requests_in_progress"))
p.REGISTRY.register(Collector())
p.REGISTRY.register(Collector())
exposition.render()
print(exposition.render().decode())
"""


def test_collectors_that_give_what_is_anothers_or_twice() -> None:
    """Of two with one name the registered metric stays, or the first; the rest is named in the log."""
    done = subprocess.run([sys.executable, "-c", COLLECTORS], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert {line for line in lines if line.startswith("kept{")} == {'kept{a="x"} 2.0', 'kept{a="y"} 3.0'}
    assert [line for line in lines if line.startswith("mine")] == ["mine_total 1"]
    for name in ("kept", "process_open_fds", "http_requests_in_progress"):
        assert lines.count(f"# TYPE {name} gauge") == 1
    for name in ("kept", "mine", "mine_total", "process_open_fds", "http_requests_in_progress"):
        assert done.stderr.count(f"/metrics: {name} is missing: its names collide") == 1


NAMES = """
from app.telemetry import exposition
import prometheus_client as p
p.Gauge("apart", "a", ["my-label"]).labels("1").set(1)
p.Gauge("equal", "e", ["my-label", "my_label"]).labels("1", "2").set(2)
p.Gauge("digit", "d", ["1a", "_a"]).labels("1", "2").set(3)
p.Gauge("empty", "e", [""]).labels("1").set(4)
p.Gauge("broken", "b", ["le\\n"]).labels("1").set(5)
p.Gauge("line\\n", "l").set(6)
p.Gauge("9th", "n").set(7)
p.Gauge("_th", "n").set(8)
p.Info("build", "b").info({"__name__": "x"})
for accept in ("", "text/plain; version=1.0.0; escaping=allow-utf-8"):
    print(exposition.render(accept=accept).decode())
"""


def test_names_that_are_no_names_or_equal_as_they_are_written() -> None:
    """Prometheus rejects the whole text if it has such a line."""
    done = subprocess.run([sys.executable, "-c", NAMES], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = [
        line for line in done.stdout.splitlines() if re.search("apart|equal|digit|empty|broken|line|th|build", line)
    ]
    samples = [line for line in ours if not line.startswith("#") and not line.startswith(("python", "process"))]
    assert samples == [
        'apart{my_label="1"} 1.0',
        "_th 7.0",
        'apart{"my-label"="1"} 1.0',
        'equal{"my-label"="1",my_label="2"} 2.0',
        'digit{"1a"="1",_a="2"} 3.0',
        '{"9th"} 7.0',
        "_th 8",
    ]
    for name in ("equal", "digit", "empty", "broken", "build"):
        assert done.stderr.count(f"samples of {name} are missing") == 1
    assert done.stderr.count(r"'line\n' is missing") == 1
