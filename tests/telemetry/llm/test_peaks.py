"""The longest prompt of the last minute: a true maximum, over all workers, that forgets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.telemetry.llm import OTHER
from app.telemetry.llm.peaks import Peaks

A, B = ("openai", "a"), ("openai", "b")


class Time:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr("app.telemetry.llm.peaks.time.time", lambda: self.now)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def exported(peaks: Peaks) -> dict[tuple[str, str], float]:
    (family,) = peaks.collect()
    assert family.name == "llm_prompt_length_characters_max"
    return {(sample.labels["provider"], sample.labels["model"]): sample.value for sample in family.samples}


def test_longest_of_each_pair(time: Time) -> None:
    peaks = Peaks()
    for pair, length in ((A, 5), (A, 900), (A, 30), (B, 7)):
        peaks.observe(pair, length)
    assert exported(peaks) == {A: 900, B: 7}


@pytest.mark.parametrize("offset", [0.0, 0.1, 2.5, 4.99])
def test_remembered_for_a_minute_and_little_longer(offset: float, time: Time) -> None:
    peaks = Peaks()
    time.now += offset
    begun = time.now
    peaks.observe(A, 900)
    peaks.observe(A, 5)
    for later, expected in ((0, 900), (59.9, 900), (60, 900), (65, 0), (66, 0), (3600, 0)):
        time.now = begun + later
        assert exported(peaks)[A] == expected, later


def test_every_scrape_of_a_minute_sees_every_peak(time: Time) -> None:
    """Whatever is said between two scrapes 60 s apart is in the later one: nothing falls through."""
    peaks = Peaks()
    for second in range(600):
        time.now += 1
        peaks.observe(A, 100 + second)
        peaks.observe(A, 1)
        if second % 60 == 59:
            assert exported(peaks)[A] == 100 + second
    for _ in range(30):
        time.now += 1
        peaks.observe(A, 1)
    assert exported(peaks)[A] == 699


def test_touched_pairs_are_zero(time: Time) -> None:
    peaks = Peaks()
    peaks.touch(A)
    assert exported(peaks) == {A: 0}


def test_lengths_beyond_a_word(time: Time) -> None:
    peaks = Peaks()
    peaks.observe(A, 1 << 40)
    assert exported(peaks)[A] == 0xFFFFFFFF


def test_more_pairs_than_room_are_other(time: Time) -> None:
    peaks = Peaks()
    for number in range(2 * Peaks.RECORDS):
        peaks.observe(("openai", str(number)), number + 1)
    peaks.observe(("openai", "x" * 500), 3)
    seen = exported(peaks)
    assert len(seen) == Peaks.RECORDS
    assert seen["openai", "0"] == 1
    assert seen[OTHER, OTHER] == 2 * Peaks.RECORDS


def test_names_beyond_ascii(time: Time) -> None:
    peaks = Peaks()
    peaks.observe(("größe", "模型"), 3)
    assert exported(peaks) == {("größe", "模型"): 3}


class Worker:
    """One of several workers, with its slot of the folder that they share."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, slot: int) -> None:
        self._monkeypatch = monkeypatch
        self._exposition = SimpleNamespace(directory=lambda: folder, worker=lambda: slot)
        self._peaks = Peaks()

    def observe(self, pair: tuple[str, str], length: int) -> None:
        self._monkeypatch.setattr("app.telemetry.llm.peaks.exposition", self._exposition)
        self._peaks.observe(pair, length)

    def exported(self) -> dict[tuple[str, str], float]:
        self._monkeypatch.setattr("app.telemetry.llm.peaks.exposition", self._exposition)
        return exported(self._peaks)


def test_several_workers(time: Time, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = Worker(monkeypatch, tmp_path, 0), Worker(monkeypatch, tmp_path, 1)
    first.observe(A, 10)
    second.observe(A, 20)
    second.observe(B, 3)
    assert first.exported() == second.exported() == {A: 20, B: 3}
    assert not list(tmp_path.glob("*.db"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_successor_of_a_dead_worker(time: Time, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It takes over the slot and its file: the peak stays true, and both go on in the same records."""
    Worker(monkeypatch, tmp_path, 0).observe(A, 20)
    successor = Worker(monkeypatch, tmp_path, 0)
    assert successor.exported() == {A: 20}
    successor.observe(A, 10)
    successor.observe(B, 4)
    assert successor.exported() == {A: 20, B: 4}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_is_just_being_made(time: Time, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker = Worker(monkeypatch, tmp_path, 0)
    worker.observe(A, 10)
    (tmp_path / "llm_prompt_peaks_1.ring").write_bytes(b"")
    assert worker.exported() == {A: 10}


def test_a_full_disk_is_no_end_of_the_world(tmp_path: Path) -> None:
    """The file is written when it is made: a map of a file that cannot grow would kill the worker at its first word."""
    code = """
import logging, resource
logging.basicConfig()
from prometheus_client import REGISTRY
from app.telemetry.llm import configure, track_call
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))
configure({"openai": ["a"]})
with track_call("openai", "a", prompt="x" * 900):
    pass
print(REGISTRY.get_sample_value("llm_prompt_length_characters_max", {"provider": "openai", "model": "a"}))
"""
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "longest LLM prompts of this worker are not shared" in result.stderr
    assert float(result.stdout) == 900
