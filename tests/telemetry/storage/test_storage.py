"""The shared folder when things go wrong: metrics that were there before, damage, removal, orphans."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.telemetry.serving import ROOT
from tests.telemetry.storage.command import run

EARLIER = """
import prometheus_client as p
plain, labelled, later = p.Counter("plain", "p"), p.Counter("labelled", "l", ["l"]), p.Counter("later", "l", ["l"])
labelled.labels("before").inc()
from app.telemetry import exposition
plain.inc(2); labelled.labels("after").inc(3); later.labels("after").inc(4)
print(exposition.render(names=["plain_total", "labelled_total", "later_total"]).decode())
"""


def test_metrics_that_were_there_before(tmp_path: Path) -> None:
    """Their values are not lost; with several workers the log says that they are not shared."""
    expected = {'labelled_total{l="before"} 1', 'labelled_total{l="after"} 3', 'later_total{l="after"} 4'}
    environment = {"PATH": os.environ["PATH"]}
    alone = subprocess.run(
        [sys.executable, "-c", EARLIER], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert set(alone.stdout.replace(".0\n", "\n").splitlines()) >= expected | {"plain_total 2"}
    assert alone.stderr == ""
    folder = tmp_path / "metrics"
    folder.mkdir(mode=0o700)  # prometheus_client's own multiprocess mode expects it
    shared = run("-c", EARLIER, folder=folder).replace(".0\n", "\n").splitlines()
    assert set(shared) >= expected | {"plain_total 2"}
    assert [line for line in shared if "Import app.telemetry first" in line] == [
        "metrics defined before app.telemetry was imported are not shared between the workers: plain, labelled. "
        "Import app.telemetry first"
    ]


COUNTS = """
from prometheus_client import Counter
from app.telemetry import exposition
Counter("counted", "c", ["l"]).labels("x").inc()
print(exposition.directory(), exposition.render(names=["counted_total"]).decode())
"""


@pytest.mark.parametrize(
    "damage",
    [
        lambda schema: schema[:-20],
        lambda schema: schema[:8],
        lambda schema: schema[:16] + bytes(len(schema) - 16),
        lambda schema: schema.replace(b'["x"]', b"[123]"),
        lambda schema: schema.replace(b'"counter"', b'"oddment"'),
        lambda schema: schema.replace(b'["g", 0', b'["g", 9'),
        lambda schema: b"something else, and longer than a header",
    ],
    ids=["cut", "no header", "zeroed", "no text", "no type", "no family", "other"],
)
def test_a_damaged_folder_keeps_no_service_from_starting(tmp_path: Path, damage: object) -> None:
    folder = tmp_path / "metrics"
    assert 'counted_total{l="x"} 1' in run("-c", COUNTS, folder=folder)
    schema = folder / "schema"
    assert callable(damage)
    damaged = damage(schema.read_bytes())
    assert damaged != schema.read_bytes()
    schema.write_bytes(damaged)
    output = run("-c", COUNTS, folder=folder)
    assert f"{folder} is damaged or was written by another version; empty it" in output
    assert 'None # HELP counted_total c\n# TYPE counted_total counter\ncounted_total{l="x"} 1\n' in output


def test_an_invalid_record_while_the_service_runs(tmp_path: Path) -> None:
    """Every reading says so, and what comes before it is taken over once."""
    code = f"""{COUNTS}
import os, struct
from app.telemetry.storage.schema import HEADER_SIZE
from app.telemetry.storage import storage
with open(exposition.directory() / "schema", "r+b") as schema:
    end = struct.unpack("<Q", os.pread(schema.fileno(), 8, 8))[0]
    known = os.pread(schema.fileno(), end - HEADER_SIZE, HEADER_SIZE)
    group = next(line for line in known.splitlines() if b'["x"]' in line)
    more = group.replace(b'["x"]', b'["y"]') + b'\\n["oddment"]\\n'
    os.pwrite(schema.fileno(), more, end)
    os.pwrite(schema.fileno(), struct.pack("<Q", end + len(more)), 8)
for _ in range(3):
    try:
        storage.schema.refresh()
    except OSError as error:
        print(error)
    print("cells", storage.schema.next_cell)
"""
    output = run("-c", code, folder=tmp_path / "metrics")
    assert output.count("is damaged or was written by another version; empty it") == 3
    assert len({line for line in output.splitlines() if line.startswith("cells")}) == 1


def test_a_folder_that_is_removed_while_the_service_runs(tmp_path: Path) -> None:
    """It is logged once, and the numbers of this worker are still reported."""
    code = (
        f"{COUNTS}\nimport shutil; shutil.rmtree(exposition.directory())\n"
        + "print(exposition.render().decode())\n" * 2
    )
    output = run("-c", code, folder=tmp_path / "metrics")
    assert output.count('counted_total{l="x"} 1') == 3
    assert output.count("was removed while in use") == 1


def test_a_full_disk_keeps_no_metric_from_being_defined(tmp_path: Path) -> None:
    """Series without space are counted in memory, labelled as this worker's, and no other value is exposed instead."""
    code = f"""{COUNTS}
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
Counter("late", "l").inc(5); Counter("later", "l", ["l"]).labels("x").inc(7)
print(exposition.render().decode())
"""
    output = run("-c", code, folder=tmp_path / "metrics")
    assert output.count('counted_total{l="x"} 1\n') == 2
    assert {line for line in output.splitlines() if line.startswith("late")} == {
        'late_total{worker="0"} 5',
        'later_total{l="x",worker="0"} 7',
    }
    assert "telemetry_unshared_series 2\n" in output
    assert output.count("metrics: no space left") == 1


LIVING = """
import os, signal
from prometheus_client import Gauge
from app.telemetry import exposition
living = Gauge("living", "l", multiprocess_mode="livesum")
if os.environ.get("SUCCESSOR"):
    print(exposition.worker(), exposition.render(names=["living"]).decode())
else:
    living.set(1)
    if not os.fork():
        os.read(0, 1), os._exit(0)
    print(flush=True), signal.pause()
"""


def test_orphans_of_a_killed_worker_do_not_hold_its_slot(tmp_path: Path) -> None:
    """As those of a ProcessPoolExecutor, which may never touch a metric."""
    folder = tmp_path / "metrics"
    environment = {"PATH": os.environ["PATH"], "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LIVING], cwd=ROOT, env=environment, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline()
        process.kill()
        process.wait()
        successor = run("-c", LIVING, folder=folder, SUCCESSOR="1")
        assert successor == "0 # HELP living l\n# TYPE living gauge\nliving 0\n\n"


def test_two_registries_with_a_metric_of_one_name() -> None:
    """Each reports its own, also where their labels differ."""
    code = """
import json
import prometheus_client as p
from app.telemetry import exposition
a, b = p.CollectorRegistry(), p.CollectorRegistry()
p.Counter("c", "c", ["l"], registry=a).labels("1").inc(); p.Counter("c", "c", ["l"], registry=b).labels("2").inc()
p.Gauge("g", "g", registry=a).set(1); p.Gauge("g", "g", ["l"], registry=b).labels("2").set(2)
print(json.dumps([exposition.render(r) == p.generate_latest(r) for r in (a, b)]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, True]
