"""Native mode as it is used: a whole stack on free ports with a state folder of its own."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from ops import secrets, settings
from ops.errors import OpsError
from ops.paths import PROJECT
from ops.processes import ProcessStack
from ops.programs import find
from ops.servers import Server
from tests.kept import Kept
from tests.ops.native import SERVERS, Stack, native_stack
from tests.servers import default_signals, folder, free_port, wait_until
from tests.telemetry.storage.test_faults import small_disk


def listening(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    """A stack that has not been started."""
    with native_stack() as stack:
        yield stack


@pytest.fixture(scope="module")
def first_start(made: Stack) -> subprocess.CompletedProcess[str]:
    result = made.run("up")
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture
def stack(made: Stack, first_start: subprocess.CompletedProcess[str]) -> Stack:
    """The stack, up and healthy, whatever the test before did to it."""
    if not made.healthy():
        result = made.run("up")
        assert result.returncode == 0, result.stderr
    return made


def test_taken_ports_are_all_named_before_anything_starts(made: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        taken, also_taken = one.getsockname()[1], other.getsockname()[1]
        result = made.run("up", PROMETHEUS_PORT=str(taken), POSTGRES_PORT=str(also_taken))
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2, result.stderr
    for port, setting in ((taken, "PROMETHEUS_PORT"), (also_taken, "POSTGRES_PORT")):
        (line,) = (line for line in lines if f"Port {port} " in line)
        assert setting in line
        assert f"(process {os.getpid()})" in line
    assert made.processes() == []
    assert not (made.state / "data").exists()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("APP_PORT", "eighty", "APP_PORT is 'eighty'; it must be a port number from 1 to 65535."),
        ("GRAFANA_PORT", "70000", "GRAFANA_PORT is '70000'; it must be a port number from 1 to 65535."),
        ("OPENAI_API_KEY", 'a"b', "OPENAI_API_KEY holds a quotation mark"),
        ("SIGHTLINE_STATE", "/tmp/" + "x" * 100, "is too long for a Unix socket"),
        ("SECRETS_DIR", "/dev/null", "SECRETS_DIR is '/dev/null', which is not a folder."),
    ],
)
def test_wrong_settings_are_said_in_one_line(made: Stack, name: str, value: str, says: str) -> None:
    result = made.run("up", **{name: value})
    assert result.returncode == 1
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert made.processes() == []


def test_one_port_for_two_servers_is_refused(made: Stack) -> None:
    result = made.run("up", APP_PORT=str(made.port("prometheus")))
    assert result.returncode == 1
    assert re.fullmatch(r"APP_PORT and PROMETHEUS_PORT are both \d+; give each a port of its own\.\n", result.stderr)


def test_what_an_archive_lacks_is_kept_and_copies_of_the_users_are_not_removed(made: Stack) -> None:
    with folder("state") as state:
        stack = ProcessStack(settings.load({**made.environment, "SIGHTLINE_STATE": str(state)}))
        (state / "data" / "grafana").mkdir(parents=True)
        (state / "data" / "grafana" / "grafana.db").write_text("dashboards")
        (state / "longterm.2026").mkdir()
        (state / "logs.tar.gz").touch()
        stack.keep("grafana")
        stack.keep("alertmanager")  # which has none
        stack.replace()
        assert (state / "data" / "grafana" / "grafana.db").read_text() == "dashboards"
        stack.remove()
        assert {entry.name for entry in state.iterdir()} == {"longterm.2026", "logs.tar.gz"}


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("printf 'a warning\\nCannot start: ONE: no\\nTWO: no\\n' >&2; exit 1", "ONE: no\nTWO: no"),
        ("echo 'a warning' >&2; echo 'OSError: no' >&2; exit 1", "ended with exit code 1: OSError: no"),
        ("kill -KILL $$", "ended with exit code -9: it said nothing"),
        ("exec sleep 600", "The service has not checked its settings within 0.5 s."),
    ],
)
def test_a_service_that_cannot_check_its_settings_says_why(
    monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    with folder("state") as state:
        stack = ProcessStack(settings.load({"SIGHTLINE_STATE": str(state), "COMPOSE_DISABLE_ENV_FILE": "1"}))
        monkeypatch.setattr(stack, "server", lambda name: Server(name, 1, ("sh", "-c", script), lambda: None))
        if "sleep" in script:
            monkeypatch.setattr("ops.processes.CHECK_TIMEOUT", 0.5)
        with pytest.raises(OpsError, match=f"{re.escape(says)}$"):
            stack._check_service()


def test_a_command_that_begins_again_in_the_virtual_environment_warns_once(made: Stack) -> None:
    file = made.project / ".env"
    file.write_text("SOMETHING=1\n")
    environment = {**made.environment, "COMPOSE_DISABLE_ENV_FILE": ""}
    command = ["python3", "-m", "ops", "check-config", "MODE=native"]
    result = subprocess.run(command, env=environment, cwd=made.project, capture_output=True, text=True)
    file.unlink()
    assert result.returncode == 0
    assert result.stderr.count("SOMETHING is not a setting") == 1


def test_status_logs_and_down_of_nothing(made: Stack) -> None:
    assert made.run("status").stderr == "Nothing runs; `make up` starts it.\n"
    assert made.run("status").returncode == 1
    assert made.run("logs").returncode == 1
    assert made.run("reload").stderr == "Nothing runs; `make up` starts it.\n"
    with pytest.raises(OpsError, match=r"^prometheus does not answer; `make logs SERVICE=prometheus` shows why"):
        made.stack.ask("prometheus", "/metrics")
    assert made.run("psql").stderr == "PostgreSQL does not run; `make up` starts it.\n"
    assert made.run("psql").returncode == 1
    assert made.run("down").stdout == "Nothing runs.\n"
    assert made.run("down").returncode == 0


def test_up_starts_everything_and_says_where(made: Stack, first_start: subprocess.CompletedProcess[str]) -> None:
    for server in SERVERS:
        assert re.search(rf"^  {server} +healthy after", first_start.stdout, re.MULTILINE), first_start.stdout
    for server in ("app", "grafana", "prometheus", "alertmanager"):
        assert f"http://localhost:{made.port(server)}" in first_start.stdout
    password = (Path(made.environment["SECRETS_DIR"]) / "grafana_admin_password").read_text()
    assert first_start.stdout.count(password) == 1


def test_status_shows_every_part(stack: Stack) -> None:
    result = stack.well()
    for server in SERVERS:
        assert re.search(rf"^{server} +running pid \d+.* healthy ", result.stdout, re.MULTILINE), result.stdout
    for job in ("app", "node", "postgres", "prometheus", "alertmanager", "grafana"):
        assert re.search(rf"^{job} +up$", result.stdout, re.MULTILINE), result.stdout


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = {server: stack.pid(server) for server in SERVERS}
    result = stack.run("up")
    assert result.returncode == 0, result.stderr
    assert {server: stack.pid(server) for server in SERVERS} == before
    password = (Path(stack.environment["SECRETS_DIR"]) / "grafana_admin_password").read_text()
    assert password not in result.stdout


def test_a_setting_that_cannot_work_leaves_the_running_stack_alone(stack: Stack) -> None:
    before = {server: stack.pid(server) for server in SERVERS}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for setting, value, says in (
            ("APP_PORT", str(port), f"Port {port} is taken by "),
            ("LLM_PROVIDER", "oracle", "LLM_PROVIDER is 'oracle'; it must be auto, simulated, openai or anthropic.\n"),
            # What only the service itself knows.
            ("LLM_PROVIDER", "openai", "LLM_PROVIDER=openai needs OPENAI_API_KEY_FILE, or"),
            ("APP_MAX_BODY_BYTES", "many", "APP_MAX_BODY_BYTES: Input should be a valid integer"),
            ("ACTIVE_USERS_STORE", "redis://host:abc", "ACTIVE_USERS_STORE: Port could not be cast to integer value"),
        ):
            result = stack.run("up", **{setting: value})
            assert (result.returncode, len(result.stderr.splitlines())) == (1, 1), result.stderr
            assert result.stderr.startswith(says)
            assert {server: stack.pid(server) for server in SERVERS} == before
            wait_until(stack.healthy)


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(stack: Stack) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    stack.well(http_proxy=proxy, HTTP_PROXY=proxy)
    assert stack.run("reload", http_proxy=proxy).returncode == 0


def test_edited_configuration_is_read_again_and_a_refused_one_is_named(stack: Stack) -> None:
    file = stack.project / "prometheus" / "prometheus.yml"
    original = file.read_text()
    pid = stack.pid("prometheus")
    try:
        file.write_text(original.replace("scrape_timeout: 3s", "scrape_timeout: 2s"))
        result = stack.run("up")
        assert result.returncode == 0, result.stderr
        taken = f"http://127.0.0.1:{stack.port('prometheus')}/api/v1/status/config"
        assert "scrape_timeout: 2s" in httpx2.get(taken, timeout=60).text
        file.write_text("global: {scrape_interval: often}\n")
        for command in ("up", "reload"):
            result = stack.run(command)
            assert result.returncode == 1
            assert result.stderr == (
                "prometheus rejects its configuration and keeps the previous one; "
                "`make logs SERVICE=prometheus` shows why.\n"
            )
            assert "Everything is healthy" not in result.stdout
        assert "scrape_timeout: 2s" in httpx2.get(taken, timeout=60).text
    finally:
        file.write_text(original)
    result = stack.run("reload")
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["alertmanager", "prometheus"]
    assert "scrape_timeout: 3s" in httpx2.get(taken, timeout=60).text
    assert stack.pid("prometheus") == pid


def test_the_service_uses_the_stacks_database_whatever_env_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text("DATABASE_HOST=db\nDATABASE_PASSWORD=other\nLOG_FORMAT=json\nAPP_HOST=0.0.0.0\n")
    with native_stack() as other:
        stack = ProcessStack(settings.load({"SIGHTLINE_STATE": str(other.state)}, tmp_path / ".env"))
        with caplog.at_level(logging.WARNING, "sightline.ops"):
            stack.warn_of_unused_settings()
        given = stack._app_environment()
    assert [record.message for record in caplog.records if record.name == "sightline.ops"] == [
        f".env: {name} has no effect in native mode; the stack sets it itself."
        for name in ("APP_HOST", "DATABASE_HOST", "DATABASE_PASSWORD")
    ]
    assert (given["LOG_FORMAT"], given["DATABASE_HOST"], given["DATABASE_PASSWORD"]) == ("json", "127.0.0.1", "")


def test_psql_is_the_superusers_and_runs_scripts(stack: Stack) -> None:
    monitors = "SELECT current_user, pg_has_role('sightline_exporter', 'pg_monitor', 'MEMBER') AS monitors;\n"
    assert stack.run("psql", given="REVOKE pg_monitor FROM sightline_exporter;\n").returncode == 0
    assert "postgres     | f" in stack.run("psql", given=monitors).stdout
    # As the runbooks have it: `make psql < postgres/init/10-roles.sql`
    result = stack.run("psql", given=(PROJECT / "postgres" / "init" / "10-roles.sql").read_text())
    assert result.returncode == 0, result.stderr
    assert "postgres     | t" in stack.run("psql", given=monitors).stdout
    refused = stack.run("psql", given="SELECT nonsense;\nSELECT 'after it';\n")
    assert refused.returncode != 0
    assert 'column "nonsense" does not exist' in refused.stderr
    assert "after it" not in refused.stdout


def test_the_stacks_database_is_asked_whatever_the_shell_says_of_others(stack: Stack) -> None:
    """PGHOSTADDR, say, goes before the address in an option: a backup would be another server's."""
    elsewhere = {"PGHOSTADDR": "192.0.2.1", "PGSERVICE": "prod", "PGOPTIONS": "-c nonsense=1", "PGCONNECT_TIMEOUT": "3"}
    result = stack.run("psql", given="SELECT 'of this stack';\n", **elsewhere)
    assert "of this stack" in result.stdout, result.stderr
    stack.well(**elsewhere)


def test_nothing_listens_beyond_this_machine(stack: Stack) -> None:
    addresses = set()
    for process in stack.processes():
        for own in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # PostgreSQL's come and go
                addresses |= {c.laddr for c in own.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in addresses} == {"127.0.0.1"}
    assert {address.port for address in addresses} == set(stack.ports.values())


def test_no_password_shows_in_arguments_environments_or_logs(stack: Stack) -> None:
    folder = Path(stack.environment["SECRETS_DIR"])
    passwords = [(folder / name).read_text() for name in secrets.NAMES]
    assert all(len(password) >= 32 for password in passwords)
    seen = [text for process in stack.processes() for text in (*process.cmdline(), *process.environ().values())]
    assert len(seen) > 50
    seen += [file.read_text(errors="replace") for file in stack.supervisor.logs.iterdir()]
    seen.append(stack.supervisor.config.read_text())
    assert [password for password in passwords if any(password in text for text in seen)] == []


def test_folders_and_secrets_are_for_their_owner_alone(stack: Stack) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    secret_folder = Path(stack.environment["SECRETS_DIR"])
    private = [secret_folder, stack.supervisor.run, stack.supervisor.logs, *(stack.state / "data").iterdir()]
    assert {path.name: oct(mode(path)) for path in private if mode(path) != 0o700} == {}
    assert mode(stack.supervisor.socket) == 0o700
    assert mode(stack.supervisor.config) == 0o600
    assert {mode(secret_folder / name) for name in secrets.NAMES} == {0o444}


def test_metrics_are_for_prometheus_alone(stack: Stack) -> None:
    address = f"http://127.0.0.1:{stack.port('app')}/metrics"
    token = (Path(stack.environment["SECRETS_DIR"]) / secrets.METRICS_TOKEN).read_text()
    assert httpx2.get(address, timeout=60).status_code == 401
    assert httpx2.get(address, headers={"Authorization": "Bearer guessed"}, timeout=60).status_code == 401
    assert httpx2.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=60).status_code == 200


@pytest.mark.attack("another site reads Prometheus", tried=2)
def test_no_web_page_reads_prometheus_through_its_visitors_browser(stack: Stack) -> None:
    port = stack.port("prometheus")
    own = f"http://localhost:{port}"
    for origin, allowed in ((own, own), ("http://elsewhere.invalid", None), (f"{own}.elsewhere.invalid", None)):
        answer = httpx2.get(f"http://127.0.0.1:{port}/api/v1/query?query=up", headers={"Origin": origin}, timeout=60)
        assert answer.status_code == 200
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_a_name_that_leads_here_reads_prometheus_and_alertmanager(stack: Stack) -> None:
    """DNS rebinding: neither has a check of its own, and so docs/security.md says that it is possible."""
    for server, path in (("prometheus", "/api/v1/query?query=up"), ("alertmanager", "/api/v2/alerts")):
        answer = httpx2.get(
            f"http://127.0.0.1:{stack.port(server)}{path}", headers={"Host": "rebound.example"}, timeout=60
        )
        assert answer.status_code == 200
    assert "DNS rebinding" in (PROJECT / "docs" / "security.md").read_text()


def test_grafana_takes_the_password_in_the_secrets(stack: Stack) -> None:
    """At the first start from the file (never a default one, never by its environment), later by Grafana's own tool."""
    file = Path(stack.environment["SECRETS_DIR"]) / "grafana_admin_password"
    environment = psutil.Process(stack.pid("grafana")).environ()
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == f"$__file{{{file}}}"
    assert environment["GF_SECURITY_SECRET_KEY"] == f"$__file{{{file.with_name('grafana_secret_key')}}}"
    file.unlink()
    result = stack.run("grafana-password")
    assert result.returncode == 0, result.stderr
    password = file.read_text()
    assert result.stdout.count(password) == 1
    given = stack.state / "data" / "grafana" / "password"
    assert given.read_text() == password + "\n"
    given.unlink()


def test_servers_inherit_nothing_of_the_users_environment(made: Stack, stack: Stack) -> None:
    assert "LLM_PROVIDER" in made.environment
    for server in SERVERS - {"app"}:
        assert "LLM_PROVIDER" not in psutil.Process(stack.pid(server)).environ()


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_what_dies_is_started_again(stack: Stack, server: str) -> None:
    before = stack.pid(server)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: stack.pid(server) not in (0, before))
    wait_until(stack.healthy, interval=1)


def test_an_unhealthy_server_shows_in_the_status(stack: Stack) -> None:
    pid = stack.pid("node-exporter")
    os.kill(pid, signal.SIGSTOP)
    try:
        result = stack.run("status")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert result.returncode == 1
    assert re.search(r"^node-exporter +running +unhealthy ", result.stdout, re.MULTILINE), result.stdout
    assert "does not answer" in result.stdout


def test_logs_of_one_server(stack: Stack) -> None:
    with (stack.supervisor.logs / "app.log").open("a") as log:
        log.write("and so on\n" * 200)  # where the output goes on to `grep`, it is complete
    assert "Serving on http://127.0.0.1:" in stack.run("logs", "SERVICE=app").stdout
    result = stack.run("logs", "SERVICE=nobody")
    assert result.returncode == 1
    assert "There is no server nobody" in result.stderr


@pytest.mark.attack("the supervisor killed")
def test_servers_without_their_supervisor_are_not_nothing(stack: Stack) -> None:
    (supervisor,) = (process for process in stack.processes() if "supervisor.supervisord" in process.cmdline())
    supervisor.kill()
    supervisor.wait(300)
    result = stack.run("status")
    assert (result.returncode, result.stderr) == (
        1,
        "The supervisor has died, its servers still run: `make up` restarts everything, `make down` stops it.\n",
    )


# Copying takes as long as the test needs to see that the servers are stopped. In short sleeps: a signal that arrives
# between Python's last look for one and the system call is handled when the call returns.
ENDLESS_BACKUP = """
import sys, time
from ops.__main__ import main
from ops.processes import ProcessStack
def pack(*_):
    while True:
        time.sleep(0.1)
ProcessStack.pack = pack
sys.exit(main(["backup", "MODE=native"]))
"""


@pytest.mark.attack("make backup interrupted")
def test_an_interrupted_backup_leaves_everything_running_and_nothing_behind(stack: Stack) -> None:
    backups = Path(stack.environment["BACKUPS_DIR"])
    backups.mkdir(mode=0o700, exist_ok=True)
    (backups / ".partial-killed").mkdir()
    before = {server: stack.pid(server) for server in SERVERS}
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS_BACKUP],
        env=stack.environment,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    ) as run:
        wait_until(lambda: stack.supervisor.processes()["prometheus"]["statename"] == "STOPPED")
        run.send_signal(signal.SIGHUP)
        _, complaint = run.communicate(timeout=300)
    assert (run.returncode, complaint) == (130, "Interrupted. \n")
    assert {one["statename"] for one in stack.supervisor.processes().values()} == {"RUNNING"}
    assert stack.pid("prometheus") != before["prometheus"]
    assert list(backups.iterdir()) == []
    wait_until(stack.healthy, interval=1)


@pytest.mark.attack("make backup without room, or without its folder", tried=2)
def test_a_backup_that_cannot_be_written_says_so_in_one_line_and_leaves_nothing(stack: Stack, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8k") as disk:
        result = stack.run("backup", BACKUPS_DIR=str(disk))
        assert list(disk.iterdir()) == []
    assert result.returncode == 1
    assert re.fullmatch(rf"{disk}/\S+\.tar cannot be written: No space left on device\.\n", result.stderr), (
        result.stderr
    )
    vanishes = tmp_path / "vanishes"
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(stack.run, "backup", BACKUPS_DIR=str(vanishes))
        wait_until(lambda: list(vanishes.glob(".partial-*")), interval=0.01)
        vanishes.rename(tmp_path / "gone")
    result = run.result()
    assert result.returncode == 1
    assert re.fullmatch(rf"{vanishes}/\S+\.tar cannot be written: No such file or directory\.\n", result.stderr)
    assert not vanishes.exists()
    assert {one["statename"] for one in stack.supervisor.processes().values()} == {"RUNNING"}


def test_data_outlive_down_and_up_and_down_leaves_nothing_behind(stack: Stack) -> None:
    service = f"http://127.0.0.1:{stack.port('app')}"
    key = httpx2.post(f"{service}/users", json={"name": "somebody"}, timeout=60).json()["api_key"]
    result = stack.run("down")
    assert result.returncode == 0, result.stderr
    assert stack.processes() == []
    assert [port for port in stack.ports.values() if listening(port)] == []
    assert not list(stack.supervisor.run.glob("*.sock*"))
    port = str(free_port())
    result = stack.run("up", APP_PORT=port)
    assert result.returncode == 0, result.stderr
    assert not listening(stack.port("app"))
    answer = httpx2.get(f"http://127.0.0.1:{port}/users/me", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    assert answer.json()["name"] == "somebody"


def keep(stack: Stack) -> Kept:
    def address(server: str) -> str:
        return f"http://127.0.0.1:{stack.port(server)}"

    kept = Kept(address("app"), address("alertmanager"), address("prometheus"))
    database(stack).write_text(kept.name)
    return kept


def database(stack: Stack) -> Path:
    """Where Grafana would have its database; here the test writes it."""
    return stack.state / "data" / "grafana" / "grafana.db"


def archives(stack: Stack) -> list[Path]:
    return sorted(Path(stack.environment["BACKUPS_DIR"]).iterdir())


def half(content: bytes) -> bytes:
    return content[: len(content.rstrip(b"\0")) // 2]  # of what says something: a tar file ends with zeros


def forged(archive: Path, copy: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> Path:
    """A copy of an archive with another manifest and other parts, but no damage that a checksum would show."""
    with tarfile.open(archive) as tar:
        parts = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    manifest = json.loads(parts.pop("manifest.json"))
    change(manifest, parts)
    for name, content in parts.items():
        manifest["parts"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with tarfile.open(copy, "w") as tar:
        for name, content in {"manifest.json": json.dumps(manifest).encode(), **parts}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return copy


def test_backup_and_restore(stack: Stack, tmp_path: Path) -> None:
    kept = keep(stack)
    result = stack.run("backup")
    assert result.returncode == 0, result.stderr
    assert {process["statename"] for process in stack.supervisor.processes().values()} == {"RUNNING"}
    (archive,) = archives(stack)
    assert str(archive) in result.stdout
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert stat.S_IMODE(archive.parent.stat().st_mode) == 0o700
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        dump = tar.extractfile("database.dump")
        assert dump is not None
        sql = subprocess.run([find("pg_restore")["pg_restore"], "-f", "-"], input=dump.read(), capture_output=True)
    parts = ["alertmanager.tar", "database.dump", "grafana.tar", "grafana_secret_key", "prometheus.tar"]
    assert names == ["manifest.json", *parts]
    assert kept.name.encode() in sql.stdout
    folder = Path(stack.environment["SECRETS_DIR"])
    old = {name: (folder / name).read_bytes() for name in secrets.NAMES}
    grafana_key = old.pop(secrets.GRAFANA_KEY)
    assert not [name for name, value in old.items() if value in archive.read_bytes() + sql.stdout]

    # Refused with one line, and nothing is changed.
    content = archive.read_bytes()
    spot = content.index(b"PGDMP") + 1000
    (tmp_path / "flipped.tar").write_bytes(content[:spot] + bytes([content[spot] ^ 1]) + content[spot + 1 :])
    (tmp_path / "half.tar").write_bytes(half(content))
    (tmp_path / "words.tar").write_text("no archive at all\n" * 1000)
    forged(archive, tmp_path / "newer.tar", lambda manifest, _: manifest["versions"].update(postgres="99.1"))
    forged(archive, tmp_path / "other.tar", lambda manifest, _: manifest.update(sightline=2))
    forged(archive, tmp_path / "more.tar", lambda _, parts: parts.update({"../../x": b""}))
    forged(archive, tmp_path / "key.tar", lambda _, parts: parts.update({secrets.GRAFANA_KEY: b"\xff\xfe"}))
    forged(archive, tmp_path / "no-tar.tar", lambda _, parts: parts.update({"prometheus.tar": b"not a tar" * 1000}))
    forged(
        archive, tmp_path / "cut.tar", lambda _, parts: parts.update({"prometheus.tar": half(parts["prometheus.tar"])})
    )
    before = {server: stack.pid(server) for server in SERVERS}
    for name, says in {
        "": "FROM= names the backup to restore. The newest is",
        "nowhere.tar": f"nowhere.tar does not exist. The newest is {archive}.",
        "flipped.tar": "is damaged: ",
        "half.tar": "is damaged, or not a backup",
        "words.tar": "is not a backup of this stack",
        "newer.tar": "holds data of postgres 99.1, which postgres",
        "other.tar": "is damaged, or not a backup",
        "more.tar": "is damaged, or not a backup",
        "key.tar": "is damaged, or not a backup",
        "no-tar.tar": "is damaged, or not a backup",
        "cut.tar": "is damaged, or not a backup",
    }.items():
        result = stack.run("restore", f"FROM={tmp_path / name}" if name else "FROM=", "CONFIRM=1")
        assert result.returncode == 1, name
        assert says in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    result = stack.run("restore", f"FROM={archive}")
    assert result.returncode == 1
    assert "Nothing was changed. CONFIRM=1 answers yes." in result.stderr
    assert {server: stack.pid(server) for server in SERVERS} == before
    assert archives(stack) == [archive]

    # Everything is lost, even the passwords; only the archive is left.
    assert stack.run("clean", "CONFIRM=1").returncode == 0
    shutil.rmtree(folder)
    result = stack.run("restore", f"FROM={archive}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert kept.missing() == []
    assert database(stack).read_text() == kept.name
    assert not set(old.values()) & {(folder / name).read_bytes() for name in secrets.NAMES}
    assert (folder / secrets.GRAFANA_KEY).read_bytes() == grafana_key, "Grafana's data are encrypted with it"
    assert stat.S_IMODE((folder / secrets.GRAFANA_KEY).stat().st_mode) == 0o444
    assert archives(stack) == [archive], "there was nothing to keep"


@pytest.mark.attack("make restore fails")
def test_a_restore_that_fails_loses_nothing(stack: Stack, tmp_path: Path) -> None:
    kept = keep(stack)
    whole = next(file for file in archives(stack) if "before" not in file.name)
    broken = forged(whole, tmp_path / "broken.tar", lambda _, parts: parts.update({"database.dump": b"PGDMP nonsense"}))
    result = stack.run("restore", f"FROM={broken}", "CONFIRM=1")
    assert result.returncode == 1
    assert "Loading failed: pg_restore" in result.stderr
    assert "Nothing was restored; the previous data are back." in result.stderr
    assert "Traceback" not in result.stderr
    assert kept.missing() == []
    assert database(stack).read_text() == kept.name
    (before,) = (file for file in archives(stack) if "before-restore" in file.name)
    with tarfile.open(before) as tar:
        assert "postgres.tar" in tar.getnames()


@pytest.mark.attack("the supervisor killed")
def test_a_failed_start_says_why_and_can_be_taken_down_even_without_its_supervisor(made: Stack) -> None:
    """The stack runs already: a changed file starts it anew, and this one cannot work."""
    options = made.project / "postgres" / "exporter.args"
    before = options.read_text()
    options.write_text(f"{before}--no-such-option\n")
    try:
        result = made.run("up")
    finally:
        options.write_text(before)
    assert result.returncode == 1
    assert "Settings or files have changed" in result.stdout
    assert "postgres-exporter keeps crashing" in result.stderr
    assert "no-such-option" in result.stderr
    assert "Traceback" not in result.stderr
    (supervisor,) = (process for process in made.processes() if "supervisor.supervisord" in process.cmdline())
    supervisor.kill()
    supervisor.wait(300)
    assert listening(made.port("prometheus"))
    assert made.run("down").returncode == 0
    assert made.processes() == []
    assert [port for port in made.ports.values() if listening(port)] == []


@pytest.mark.attack("make restore killed", tried=2)
def test_a_killed_restore_has_changed_nothing_or_is_to_be_done_again(stack: Stack) -> None:
    """Killed while it loads: there is no chance to put anything right."""
    kept = keep(stack)
    whole = next(file for file in archives(stack) if "before" not in file.name)

    def kill_a_restore() -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            [sys.executable, "-m", "ops", "restore", f"FROM={whole}", "CONFIRM=1", "MODE=native"],
            env=stack.environment,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        ) as run:
            wait_until((stack.state / "data.new").exists, interval=0.01)
            run.kill()
        return stack.run("up")

    result = kill_a_restore()
    assert result.returncode == 0, result.stderr
    assert "Removing what an unfinished restore has loaded; it has replaced nothing\n" in result.stdout
    assert kept.missing() == []
    assert stack.run("clean", "CONFIRM=1").returncode == 0
    result = kill_a_restore()
    assert (result.returncode, result.stderr) == (
        1,
        f"A restore was interrupted, the data are incomplete. `make restore FROM={whole}` does it again.\n",
    )
    result = stack.run("restore", f"FROM={whole}", "CONFIRM=1")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in stack.state.glob("data*")] == ["data"]


def test_clean_asks_and_then_removes_the_data(made: Stack) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "ops", "clean", "MODE=native"],
        env=made.environment,
        cwd=made.project,
        input="n\n",
        text=True,
    )
    assert refused.returncode == 1
    assert (made.state / "data" / "postgres").exists()
    assert made.run("clean", "CONFIRM=1").returncode == 0
    assert not (made.state / "data").exists()


STACK_COMMANDS = (
    "up", "down", "status", "logs", "psql", "check-config", "reload", "clean CONFIRM=1", "backup",
    "grafana-password", "loadtest",
)  # fmt: skip


@pytest.mark.parametrize("command", STACK_COMMANDS)
def test_docker_mode_without_docker_says_so_in_one_line(command: str, tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "SECRETS_DIR": str(tmp_path / "secrets")}
    result = subprocess.run(
        [sys.executable, "-m", "ops", *command.split(), "MODE=docker"],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.removeprefix("loadtest: ") == (
        "There is no `docker` on PATH: install Docker Engine with Compose, or use MODE=native.\n"
    )
