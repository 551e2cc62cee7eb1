"""What `make adopt` copies and under which names, and that it neither overwrites anything nor leaves its target."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ops.paths import PROJECT
from tests.docs.guide import adopt


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_service_has_its_own_name_everywhere(tmp_path: Path) -> None:
    service = tmp_path / "shop"
    service.mkdir()
    for options, name in (((), "shop"), (("SERVICE=web-shop", "OVERWRITE=1"), "web-shop")):
        assert adopt(service, "PIECES=prometheus runbooks dashboards alertmanager", *options).returncode == 0
        config = yaml.safe_load((service / "monitoring" / "prometheus" / "prometheus.yml").read_text())
        jobs = {job["job_name"]: job for job in config["scrape_configs"]}
        assert name in jobs
        assert "app" not in jobs
        for job in (name, "postgres"):
            assert {"target_label": "service", "replacement": name} in jobs[job]["relabel_configs"]
        runbooks = "".join(file.read_text() for file in (service / "monitoring" / "runbooks").glob("*.md"))
        assert f'{{job="{name}"}}' in runbooks
        assert 'job="app"' not in runbooks
        everything = b"".join(tree(service / "monitoring" / "grafana").values())
        assert b'"app"' not in everything.replace(b'"app": ', b"")
    refused = adopt(service, "SERVICE=my service")
    assert refused.returncode == 1
    assert "The service cannot be called 'my service'" in refused.stderr
    assert "Use SERVICE=my-service." in refused.stderr


def test_a_grafana_that_has_data_sources_keeps_them(tmp_path: Path) -> None:
    """Grafana takes equal names for the same data source, and does not start with two defaults."""
    assert adopt(tmp_path, "PIECES=dashboards").returncode == 0
    folder = tmp_path / "monitoring" / "grafana"
    [file] = (folder / "provisioning" / "datasources").iterdir()
    prometheus, alertmanager = yaml.safe_load(file.read_text())["datasources"]
    assert (prometheus["name"], prometheus["isDefault"]) == ("Sightline Prometheus", False)
    assert "isDefault" not in alertmanager
    assert prometheus["jsonData"]["alertmanagerUid"] == alertmanager["uid"] == "sightline-alertmanager"
    assert prometheus["uid"] == "sightline-prometheus"
    assert alertmanager["name"] == "Sightline Alertmanager"
    [file] = (folder / "provisioning" / "dashboards").iterdir()
    assert [one["folder"] for one in yaml.safe_load(file.read_text())["providers"]] == ["Sightline"]
    for file in (folder / "dashboards").iterdir():
        dashboard = json.loads(file.read_text())
        assert dashboard.keys() & {"__inputs", "id"} == set(), (
            "the import page would ask, the API take it for an update"
        )
        assert dashboard["uid"].startswith("sightline-")
        assert '"uid": "prometheus"' not in file.read_text()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    assert adopt(tmp_path).returncode == 0
    assert adopt(tmp_path).returncode == 0, "identical files are not a conflict"
    mine = tmp_path / "telemetry" / "http" / "middleware.py"
    mine.write_text("# mine\n")
    (tmp_path / "telemetry" / "users.py").unlink()
    before = tree(tmp_path)
    refused = adopt(tmp_path)
    assert refused.returncode == 1
    assert str(mine) in refused.stderr
    assert "OVERWRITE=1" in refused.stderr
    assert tree(tmp_path) == before, "nothing at all is copied"
    replaced = adopt(tmp_path, "OVERWRITE=1")
    assert replaced.returncode == 0
    assert "1 files replaced" in replaced.stdout
    assert mine.read_bytes() == (PROJECT / "app" / "telemetry" / "http" / "middleware.py").read_bytes()


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        (".", ("PACKAGE=.",), "such as PACKAGE=telemetry."),
        (".", ("PACKAGE=src",), "such as PACKAGE=src/telemetry."),
        (".", ("PACKAGE=src/service/metrics",), "metrics.py exists"),
        (".", ("PACKAGE=src/service",), "already is a package of your service. Choose"),
        (".", ("PACKAGE=src/service", "OVERWRITE=1"), "such as PACKAGE=src/service/telemetry"),
        (".", ("PACKAGE=src/my-pkg",), "cannot import a package named 'my-pkg'. Use PACKAGE=src/my_pkg."),
        (".", ("PACKAGE=src/2fast",), "cannot import a package named '2fast'. Use PACKAGE=src/_2fast."),
        (".", ("PACKAGE=src/http",), "the standard library has a module of the same name. Choose"),
        ("src/service/metrics.py", (), "is not a folder"),
        ("files", (), "files/monitoring\n"),
        ("files", ("PIECES=middleware", "PACKAGE=monitoring/telemetry"), "folders are needed"),
        ("nowhere", (), "Set TARGET= to the folder"),
        (".", ("PIECES=moon",), "Unknown piece: moon"),
        (".", ("PACKAGE=../elsewhere",), "PACKAGE is a folder inside TARGET"),
        (str(PROJECT / "docs"), (), "inside this project"),
    ],
)
def test_a_wrong_call_shows_what_to_do(tmp_path: Path, target: str, options: tuple[str, ...], says: str) -> None:
    for file in ("src/service/__init__.py", "src/service/metrics.py", "src/script.py", "files/monitoring"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    before = tree(tmp_path)
    result = adopt(tmp_path / target, *options)
    assert result.returncode == 1
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert tree(tmp_path) == before, "nothing at all is copied"


@pytest.mark.parametrize("options", [(), ("OVERWRITE=1",)])
@pytest.mark.parametrize("link", ["monitoring", "monitoring/prometheus/prometheus.yml", "telemetry/http"])
def test_nothing_is_written_through_links_that_lead_out(tmp_path: Path, link: str, options: tuple[str, ...]) -> None:
    service, elsewhere = tmp_path / "service", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("not to be replaced")
    (service / link).parent.mkdir(parents=True)
    (service / link).symlink_to(elsewhere / "file" if link.endswith(".yml") else elsewhere)
    before = tree(tmp_path)
    result = adopt(service, *options)
    assert result.returncode == 1
    assert "Symbolic links lead outside the target" in result.stderr
    assert str(service / link) in result.stderr
    assert tree(tmp_path) == before


def test_links_inside_of_the_target_are_followed(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "monitoring").symlink_to("deploy")
    assert adopt(tmp_path, "PIECES=prometheus").returncode == 0
    assert (tmp_path / "deploy" / "prometheus" / "prometheus.yml").is_file()


def test_the_report_fits_a_screen(tmp_path: Path) -> None:
    result = adopt(tmp_path)
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 120
    copied = sum(int(count) for count in re.findall(r"^ +(\d+)  \S", result.stdout, re.MULTILINE))
    assert f"{copied} files copied" in lines[0]
    assert copied == len(tree(tmp_path))


def test_packages_of_all_kinds_take_the_modules(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").touch()
    for package in ("service/telemetry", "new/telemetry", "service/telemetry", "lone"):
        assert adopt(tmp_path, "PIECES=middleware", f"PACKAGE={package}").returncode == 0
    assert adopt(tmp_path, "PIECES=prometheus dashboards", "PACKAGE=.").returncode == 0, "no modules"


def test_an_earlier_copy_is_updated_and_never_taken_for_a_package_of_ones_own(tmp_path: Path) -> None:
    assert adopt(tmp_path, "PIECES=users", "PACKAGE=service/telemetry").returncode == 0
    (tmp_path / "service" / "telemetry" / "users.py").write_text("# an earlier release\n")
    refused = adopt(tmp_path, "PIECES=users", "PACKAGE=service/telemetry")
    assert "OVERWRITE=1" in refused.stderr
    assert adopt(tmp_path, "PIECES=users", "PACKAGE=service/telemetry", "OVERWRITE=1").returncode == 0


def test_git_never_sees_a_secret(tmp_path: Path) -> None:
    assert adopt(tmp_path, "PIECES=prometheus alertmanager postgres").returncode == 0
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for folder, name in (("prometheus", "metrics_token"), ("alertmanager", "slack_url"), ("postgres", "password")):
        (tmp_path / "monitoring" / folder / "secrets" / name).write_text("secret")
    seen = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "prometheus/prometheus.yml" in seen.stdout
    assert "metrics_token" not in seen.stdout
    assert "slack_url" not in seen.stdout
    assert "password" not in seen.stdout
