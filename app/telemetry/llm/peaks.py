# SPDX-License-Identifier: Apache-2.0
"""The longest prompt of the last minute, over all workers: llm_prompt_length_characters_max."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .metrics import OTHER, PAIR

try:
    from .. import exposition
except ImportError:  # this package was copied alone: one process, numbers in memory
    exposition = None  # type: ignore[assignment]

log = logging.getLogger("sightline_telemetry")


def _map(path: Path, size: int) -> mmap.mmap:
    """Map a private file, created at full size.

    Raises:
        OSError: the disk is full. (Later, a write into the map would end the process with SIGBUS.)
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < size and os.pwrite(descriptor, bytes(size), 0) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


class Peaks(Collector):
    """The true maximum prompt length of the last 60 s per provider and model, over all workers.

    Each worker keeps a ring of 5 s time slots per pair, in memory or, with several workers, in its own file, which the
    worker that is scraped reads. A word is `slot number << 32 | length`, written atomically. Old slots expire by their
    number, so a worker that dies leaves nothing to clean up. There is one slot more than a minute has, as the current
    one is incomplete.
    """

    SLOT_SECONDS = 5
    SLOTS = 60 // SLOT_SECONDS + 1
    KEY_BYTES = 248
    RECORD_WORDS = 1 + KEY_BYTES // 8 + SLOTS  # length of the key, key, ring
    RECORDS = 1024

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: memoryview | None = None
        self._unshared = False  # there are other workers, but this one has no file
        self._records: dict[tuple[str, str], int] = {}

    def observe(self, pair: tuple[str, str], length: int) -> None:
        slot = int(time.time()) // self.SLOT_SECONDS
        with self._lock:
            words = self._open()
            at = self._ring(words, pair) + slot % self.SLOTS
            word = words[at]
            if word >> 32 != slot or word & 0xFFFFFFFF < length:
                words[at] = slot << 32 | min(max(length, 0), 0xFFFFFFFF)

    def touch(self, pair: tuple[str, str]) -> None:
        """Create the series of the pair, at 0."""
        with self._lock:
            self._ring(self._open(), pair)

    def forget(self) -> None:
        """Open again on the next use: a forked worker has its own file."""
        self._lock = threading.Lock()
        self._words = None
        self._unshared = False
        self._records = {}

    def _open(self) -> memoryview:
        if self._words is None:
            size = self.RECORDS * self.RECORD_WORDS * 8
            folder = exposition.directory() if exposition is not None else None
            if folder is None:
                memory = mmap.mmap(-1, size)
            else:
                try:
                    memory = _map(folder / f"llm_prompt_peaks_{exposition.worker()}.ring", size)
                except OSError as error:
                    log.warning("longest LLM prompts of this worker are not shared: %s", error)
                    memory = mmap.mmap(-1, size)
                    self._unshared = True
            self._words = memoryview(memory).cast("Q")
            self._records = dict(self._scan(self._words))
        return self._words

    def _ring(self, words: memoryview, pair: tuple[str, str]) -> int:
        """The index of the pair's ring. A new pair gets a record; the last record is reserved for `other`."""
        at = self._records.get(pair)
        if at is None:
            key = "\0".join(pair).encode()
            full = len(self._records) >= self.RECORDS - 1 or len(key) > self.KEY_BYTES
            if full and pair != (OTHER, OTHER):
                return self._ring(words, (OTHER, OTHER))
            record = len(self._records) * self.RECORD_WORDS
            words.cast("B")[(record + 1) * 8 : (record + 1) * 8 + len(key)] = key
            words[record] = len(key)  # last, as a reader takes the record from here on
            at = self._records[pair] = record + 1 + self.KEY_BYTES // 8
        return at

    def _scan(self, words: memoryview) -> Iterator[tuple[tuple[str, str], int]]:
        octets = words.cast("B")
        for record in range(0, len(words), self.RECORD_WORDS):
            if not words[record]:
                return
            provider, model = bytes(octets[(record + 1) * 8 : (record + 1) * 8 + words[record]]).decode().split("\0")
            yield (provider, model), record + 1 + self.KEY_BYTES // 8

    def describe(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "llm_prompt_length_characters_max", "Longest prompt of the last 60 seconds", labels=PAIR
        )

    def collect(self) -> Iterable[GaugeMetricFamily]:
        oldest = int(time.time()) // self.SLOT_SECONDS - self.SLOTS + 1
        peaks: dict[tuple[str, str], int] = {}
        for words in self._all_workers():
            for pair, at in self._scan(words):
                ring = words[at : at + self.SLOTS]
                lengths = [word & 0xFFFFFFFF for word in ring if word >> 32 >= oldest]
                peaks[pair] = max(peaks.get(pair, 0), *lengths, 0)
        for family in self.describe():
            for pair, length in peaks.items():
                family.add_metric(pair, length)
            yield family

    def _all_workers(self) -> Iterator[memoryview]:
        folder = exposition.directory() if exposition is not None else None
        if folder is None or self._unshared:
            with self._lock:
                yield self._open()
        if folder is not None:
            for path in folder.glob("llm_prompt_peaks_*.ring"):
                content = path.read_bytes()
                if len(content) == self.RECORDS * self.RECORD_WORDS * 8:  # not one that is being created
                    yield memoryview(content).cast("Q")


peaks = Peaks()
REGISTRY.register(peaks)
os.register_at_fork(after_in_child=peaks.forget)
