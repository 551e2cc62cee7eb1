"""`make standins` is ended at random moments, too: the next one makes all images, and nothing else is left.

CHAOS_TIMES=20 CHAOS_SEED=n make test-stack TESTS=tests/ops/docker/test_standins.py: until each signal has hit 20 times.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ops.paths import PROJECT
from tests.ops.chaos import ENDS, SEED, interruptions, struck
from tests.rig import engine, standins
from tests.running import folder, wait_until

pytestmark = pytest.mark.stack

IMAGES = {"one": "nowhere.invalid/one:1.0", "two": "nowhere.invalid/two:2.0"}  # can't be pulled
# What the real one does that may outlive it: it mounts something into the new root, fills that, and unmounts it.
UNPACK = """#!/bin/sh -e
mkdir -p "$4/proc"
mount -t proc proc "$4/proc"
sleep 0.3
cp -a {kept}/. "$4"
umount "$4/proc"
"""
DOCKERFILE = """
FROM ${BASE} AS NAME
ARG TAG
RUN echo NAME $TAG > /etc/stand-in
"""
# A machine in the machine: without a network, an engine or a process of another. All of it ends with its first process,
# which inherits orphans.
MACHINE = ["unshare", "--mount", "--propagation=private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
FIRST = """
mount -t tmpfs tmpfs /run && mkdir /run/cgroup && mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys && mount --rbind /run/cgroup /sys/fs/cgroup && ip link set lo up && echo ready
exec env --ignore-signal=CHLD sleep infinity
"""


class SmallStandins:
    """`make standins` of a copy of the project, with an engine of its own and images that take a second each."""

    def __init__(self, project: Path, dice: random.Random) -> None:
        self.project, self.dice = project, dice
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "MAKE", "MFLAGS"))
        }
        self._copy()
        self.seconds = 0.0  # that the command takes when nothing ends it

    def _copy(self) -> None:
        for part in ("ops", "tests/rig"):
            shutil.copytree(PROJECT / part, self.project / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "Makefile", self.project)
        listed = "".join(f"  {name}: &{name} {image}\n" for name, image in IMAGES.items())
        (self.project / "docker-compose.yml").write_text(f"x-images:\n{listed}")
        sources = self.project / "tests" / "rig" / "images"
        (sources / "Dockerfile").write_text("ARG BASE\n" + "".join(DOCKERFILE.replace("NAME", name) for name in IMAGES))
        home = self.project / ".stack"
        home.mkdir()
        (home / "engine").symlink_to(engine.unpacked())
        kept = self.project / "kept"
        small_root(kept)
        programs = self.project / "bin"
        programs.mkdir()
        (programs / "debootstrap").write_text(UNPACK.format(kept=kept))
        (programs / "debootstrap").chmod(0o755)
        self.environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    @contextmanager
    def machine(self) -> Iterator[None]:
        with subprocess.Popen([*MACHINE, "sh", "-c", FIRST], stdout=subprocess.PIPE) as started:
            try:
                assert started.stdout
                assert started.stdout.readline() == b"ready\n"
                (self.first,) = psutil.Process(started.pid).children()
                self.enter = ["nsenter", f"--target={self.first.pid}", "--mount", "--net", "--pid", "--"]
                self.enter += ["env", f"--chdir={self.project}"]
                yield
            finally:
                started.kill()

    def attempt(self, end: signal.Signals, group: bool) -> bool:
        """From nothing but the engine's programs: it is started, the base and the images are made, it is stopped."""
        shutil.rmtree(self.project / ".stack" / "data", ignore_errors=True)
        after = self.dice.uniform(0, self.seconds)
        started = time.monotonic()
        hit = struck(self.words("make", "standins"), self.project, self.environment, end, group, after, "tests.rig")
        if not hit:
            self.seconds = time.monotonic() - started
        self.verify()
        return hit

    def measure(self) -> None:
        started = time.monotonic()
        self.run("make", "--silent", "standins")
        self.seconds = time.monotonic() - started
        self.verify()

    def words(self, *command: str) -> list[str]:
        return [*self.enter, *command]

    def run(self, *command: str) -> str:
        result = subprocess.run(
            self.words(*command), cwd=self.project, env=self.environment, capture_output=True, text=True, timeout=ENDS
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def verify(self) -> None:
        """The next command has all images, and then nothing is left but them: no container, folder, process, mount
        or bridge."""
        list_all = "docker image ls --format={{.Repository}}:{{.Tag}} && docker ps --all --format={{.Image}}:container"
        listed = self.run("python3", "-m", "tests.rig", "run", "sh", "-c", list_all)
        found = [line for line in listed.splitlines() if re.fullmatch(r"\S+:\S+", line)]  # the others: its progress
        assert sorted(found) == sorted([*IMAGES.values(), f"{standins.BASE}:latest"])
        wait_until(lambda: [one.cmdline() for one in self.first.children(recursive=True)] == [], ENDS)
        assert not list((self.project / ".stack").glob("base-*"))
        assert str(self.project) not in Path(f"/proc/{self.first.pid}/mounts").read_text()
        assert {one.name for one in (Path(self.project) / ".stack").iterdir()} == {
            "data", "dockerd.log", "engine", "images.lock"
        }  # fmt: skip
        interfaces = re.findall(r"^\d+: (\w+)", self.run("ip", "-oneline", "link"), re.MULTILINE)
        assert interfaces == ["lo"]


def small_root(folder: Path) -> None:
    """As much of a Debian as the stand-ins' base and a small image need: a shell, `cat`, their libraries."""
    programs = ["/bin/sh", "/bin/cat"]
    libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", *programs], capture_output=True, text=True).stdout)
    for file in {*programs, *libraries}:
        (folder / file[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file[1:])
    for place in ("etc/apt/apt.conf.d", "etc/dpkg/dpkg.cfg.d", "usr/local/share/ca-certificates", "usr/sbin", "proc"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / "usr/sbin/update-ca-certificates").write_text("#!/bin/sh\n")
    (folder / "usr/sbin/update-ca-certificates").chmod(0o755)


def test_standins_that_are_interrupted_are_made_by_the_next_command(summarize: Callable[[str, str], None]) -> None:
    dice = random.Random(SEED)
    with folder("standins") as project:
        small = SmallStandins(project, dice)
        with small.machine():
            small.measure()
            interruptions("stand-ins", {"standins": small.attempt}, dice, summarize)


DEBOOTSTRAP = """#!/bin/sh -e
mkdir -p "$4/proc"
mount -t proc proc "$4/proc"
sleep 1000 &
touch "$4/begun"
wait
"""
MAKE_BASE = """
import os, sys
from pathlib import Path
from tests.rig import standins
standins.HOME = Path(sys.argv[1])
standins._import_base(dict(os.environ))
"""


def test_the_base_of_the_standins_that_was_killed_leaves_nothing(tmp_path: Path) -> None:
    """debootstrap is one that mounts something, and then takes long; the second time one that fails."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "debootstrap"
    program.write_text(DEBOOTSTRAP)
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", MAKE_BASE, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, env=environment) as killed:
        wait_until(lambda: list(tmp_path.glob("base-*/root/begun")))
        killed.kill()

    def processes() -> list[int]:
        return [one.pid for one in psutil.process_iter(["cmdline"]) if str(program) in (one.info["cmdline"] or ())]

    wait_until(lambda: not processes())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert list(tmp_path.glob("base-*"))
    program.write_text("#!/bin/sh\nexit 1\n")
    assert subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True).returncode == 1
    assert not list(tmp_path.glob("base-*"))
