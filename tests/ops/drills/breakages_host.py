"""Drills that break the machine of a separate stack: file systems, memory, disk, processors, open files."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.ops.drills.lab import Lab
from tests.running import meanwhile, wait_until


@contextmanager
def open_files(lab: Lab) -> Iterator[None]:
    """The service's processes come near their limit of open files."""
    limits: dict[psutil.Process, tuple[int, int]] = {}
    main = lab.main_process("app")
    for process in (main, *main.children(recursive=True)):
        soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
        limits[process] = (soft, hard)
        process.rlimit(resource.RLIMIT_NOFILE, (int(process.num_fds() / 0.9), hard))
    try:
        yield
    finally:
        for process, limit in limits.items():
            with suppress(psutil.NoSuchProcess):
                process.rlimit(resource.RLIMIT_NOFILE, limit)


@contextmanager
def disk_full(lab: Lab) -> Iterator[None]:
    """A file system of 64 MiB runs full, slowly, so that where it leads can be foreseen."""
    with _file_system(lab) as mount:

        def fill(over: threading.Event) -> None:
            for number in range(20):
                with suppress(OSError):
                    (mount / f"part-{number}").write_bytes(b"x" * (4 * 2**20))
                if over.wait(1):
                    return

        with meanwhile(fill):
            yield


@contextmanager
def inodes_used_up(lab: Lab) -> Iterator[None]:
    """Something creates empty files, a tenth of the inodes a second, until there are none left."""
    inodes = 1280
    with _file_system(lab, "-N", str(inodes)) as mount:

        def create(over: threading.Event) -> None:
            for number in range(inodes):
                with suppress(OSError):
                    (mount / f"empty-{number}").touch()
                if number % (inodes // 10) == 0 and over.wait(1):
                    return

        with meanwhile(create):
            yield


@contextmanager
def filesystem_read_only(lab: Lab) -> Iterator[None]:
    """A file system is mounted read-only while it is in use."""
    with _file_system(lab) as mount:
        seen = f'node_filesystem_readonly{{mountpoint="{mount}"}} == 0'
        wait_until(lambda: lab.stack.query(seen))
        # Not by an error (trigger_fs_error), which Debian's node_exporter does not see on newer kernels: findings/.
        _run("mount", "-o", "remount,ro", str(mount))
        yield


@contextmanager
def _file_system(lab: Lab, *options: str) -> Iterator[Path]:
    """An ext4 of 64 MiB, made with these options of mkfs; yields where it is mounted."""
    image, mount = lab.folder / "disk.img", lab.folder / "disk"
    with open(image, "wb") as file:
        file.truncate(64 * 2**20)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", *options, str(image))
    _run("mount", "-o", "loop", str(image), str(mount))
    try:
        yield mount
    finally:
        _run("umount", str(mount))
        image.unlink()


@contextmanager
def out_of_memory(lab: Lab) -> Iterator[None]:
    """A process wants more memory than its control group has, and the kernel ends it."""
    folder, limit = _memory_group()
    folder.mkdir()
    try:
        (folder / limit).write_text(str(32 * 2**20))
        eater = f"echo $$ > {folder}/cgroup.procs; exec python3 -c \"b'1' * 2**30\""
        result = subprocess.run(["sh", "-c", eater])
        assert result.returncode == -9, "the kernel did not end it"
        yield
    finally:
        folder.rmdir()


def _memory_group() -> tuple[Path, str]:
    name = f"sightline-drill-{os.getpid()}"
    first = Path("/sys/fs/cgroup/memory")
    if first.is_dir():
        return first / name, "memory.limit_in_bytes"
    return Path("/sys/fs/cgroup") / name, "memory.max"


@contextmanager
def disk_busy(lab: Lab) -> Iterator[None]:
    """Two dozen readers queue for the disk, past every cache."""
    file = Path("/var/tmp") / f"sightline-drill-{os.getpid()}"
    file.write_bytes(os.urandom(2**20) * 64)
    done = threading.Event()

    def read(seed: int) -> None:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 2**20)
        try:
            offset = seed
            while not done.is_set():
                offset = (offset * 31 + 7) % 64
                os.preadv(descriptor, [buffer], offset * 2**20)
        finally:
            os.close(descriptor)

    with ThreadPoolExecutor(24) as pool:
        readers = [pool.submit(read, seed) for seed in range(24)]
        try:
            yield
        finally:
            done.set()
            for reader in readers:
                reader.result()
            file.unlink()


@contextmanager
def load_high(lab: Lab) -> Iterator[None]:
    """Far more processes want to run than there are cores; they are polite (nice 19), as the test must go on."""
    burn = "import os, time\nend = time.monotonic() + 240\nparent = os.getppid()\n"
    burn += "while time.monotonic() < end and os.getppid() == parent:\n    for _ in range(10**6): pass\n"
    burners = [
        subprocess.Popen(["nice", "-n", "19", "python3", "-I", "-c", burn]) for _ in range(30 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
