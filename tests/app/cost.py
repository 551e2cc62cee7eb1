"""What a running service uses, as the system says it."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.running import Running

MEMORY = 16 * 2**20


class Cost:
    """What the service has used since the last look."""

    def __init__(self, service: Running) -> None:
        self._process = psutil.Process(service.process.pid)
        self._folder = Path(f"/proc/{service.process.pid}")
        self.start()

    def start(self) -> None:
        (self._folder / "clear_refs").write_text("5")  # the highest memory begins anew
        self._memory = self._process.memory_info().rss
        self._cpu = sum(self._process.cpu_times()[:2])

    def look(self) -> tuple[float, int]:
        """Seconds of CPU time, and bytes of memory at the highest."""
        status = (self._folder / "status").read_text()
        highest = int(status.split("VmHWM:")[1].split()[0]) * 1024
        return sum(self._process.cpu_times()[:2]) - self._cpu, highest - self._memory
