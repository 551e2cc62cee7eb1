"""Native mode as it is used: a whole stack on free ports with a state folder of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from ops import secrets
from ops.paths import PROJECT
from ops.ports import listens
from tests.ops.native import SERVERS, Stack
from tests.running import free_port, wait_until


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
    assert listens(made.port("prometheus"))
    assert made.run("down").returncode == 0
    assert made.processes() == []
    assert [port for port in made.ports.values() if listens(port)] == []


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


def test_data_outlive_down_and_up_and_down_leaves_nothing_behind(stack: Stack) -> None:
    service = f"http://127.0.0.1:{stack.port('app')}"
    key = httpx2.post(f"{service}/users", json={"name": "somebody"}, timeout=60).json()["api_key"]
    result = stack.run("down")
    assert result.returncode == 0, result.stderr
    assert stack.processes() == []
    assert [port for port in stack.ports.values() if listens(port)] == []
    assert not list(stack.supervisor.run.glob("*.sock*"))
    port = str(free_port())
    result = stack.run("up", APP_PORT=port)
    assert result.returncode == 0, result.stderr
    assert not listens(stack.port("app"))
    answer = httpx2.get(f"http://127.0.0.1:{port}/users/me", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    assert answer.json()["name"] == "somebody"
