"""Debian's Alertmanager and amtool, unpacked and not installed: where they find their templates."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ops import packages, paths
from ops.errors import OpsError
from ops.packages import TEMPLATES
from ops.paths import HOME, PROJECT

CONFIG = PROJECT / "alertmanager" / "alertmanager.yml"
NOBODY = 65534


@pytest.fixture
def amtool() -> Path:
    if Path(TEMPLATES).exists():
        pytest.skip("Alertmanager is installed here, so nothing has to be mounted")
    packages.obtain("amtool")
    return HOME / "packages" / "prometheus-alertmanager" / "bin" / "amtool"


def test_two_projects_that_share_unpacked_packages_share_their_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (tmp_path / name / ".native" for name in ("first", "second"))
    (first / "packages").mkdir(parents=True)
    second.mkdir(parents=True)
    (second / "packages").symlink_to(first / "packages")
    monkeypatch.setattr(paths, "LOCK_TIMEOUT", 0)
    monkeypatch.setattr(packages, "HOME", first)
    with packages.lock():
        monkeypatch.setattr(packages, "HOME", second)
        with pytest.raises(OpsError, match=f"process {os.getpid()}"), packages.lock():
            pass
    with packages.lock():
        assert not (second / "packages.lock").exists()


def check_config(amtool: Path, *prefix: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path + os.environ["PATH"], "user": "somebody"}
    return subprocess.run([*prefix, amtool, "check-config", CONFIG], capture_output=True, text=True, env=environment)


def test_templates_are_found_without_root(amtool: Path) -> None:
    unprivileged = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    for prefix in ((), unprivileged) if os.geteuid() == 0 else ((),):
        result = check_config(amtool, *prefix)
        assert result.returncode == 0, result.stderr
        assert "1 templates" in result.stdout
    assert not Path(TEMPLATES).exists(), "nothing is left on the machine"


def test_without_mount_namespaces_the_message_shows_what_to_do(amtool: Path, tmp_path: Path) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    result = check_config(amtool, path=f"{tmp_path}:")
    assert result.returncode == 1
    link = f"ln -s {amtool.parents[1]}{TEMPLATES} {TEMPLATES}"
    expected = f"Debian's amtool needs its templates. Once, as root: mkdir -p {Path(TEMPLATES).parent} && {link}\n"
    assert result.stderr == expected
