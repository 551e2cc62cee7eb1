"""What the running containers may and can't do, asked of the engine, of the kernel and by trying."""

from __future__ import annotations

import ipaddress
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ops import secrets
from tests.ops.docker.conftest import PUBLISHED, Stack
from tests.running import wait_until

pytestmark = pytest.mark.stack

# Service -> user id. None is root, and servers that hold data have a user of their own.
USERS = {
    "app": 10001,
    "proxy": 99,
    "postgres": 999,
    "postgres-exporter": 65534,
    "node-exporter": 65534,
    "prometheus": 65534,
    "alertmanager": 65534,
    "grafana": 472,
}
NETWORKS = {
    "app": {"database", "monitoring", "outside"},
    "proxy": {"monitoring", "published"},
    "postgres": {"database"},
    "postgres-exporter": {"database", "monitoring"},
    "node-exporter": {"monitoring"},
    "prometheus": {"monitoring", "published"},
    "alertmanager": {"monitoring", "outside"},
    "grafana": {"monitoring", "published"},
}
WRITABLE = {  # beside /tmp
    "postgres": {"/var/lib/postgresql", "/var/run/postgresql"},
    "prometheus": {"/prometheus"},
    "alertmanager": {"/alertmanager"},
    "grafana": {"/var/lib/grafana"},
}
SECRETS = {
    "app": {
        *("app_db_password", "openai_api_key", "anthropic_api_key", "faults_token", "metrics_token"),
        *("active_users_key", "valkey_password"),
    },
    "postgres": {"postgres_password", "app_db_password", "exporter_db_password"},
    "postgres-exporter": {"exporter_db_password"},
    "grafana": {"grafana_admin_password", "grafana_secret_key"},
}
COMPILERS = ("cc", "gcc", "g++", "clang", "make", "ld", "rustc", "go")

each_service = pytest.mark.parametrize("service", USERS)


@pytest.fixture(scope="module")
def containers(stack: Stack) -> dict[str, dict[str, Any]]:
    return stack.containers()


def test_every_service_is_looked_at(stack: Stack) -> None:
    assert set(stack.services) == set(USERS)


@each_service
def test_processes_have_no_privileges(containers: dict[str, dict[str, Any]], service: str) -> None:
    """As the kernel sees the container's first process: user, capabilities, no-new-privileges, seccomp."""
    status = Path(f"/proc/{containers[service]['State']['Pid']}/status").read_text()
    facts = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert set(facts["Uid"]) == {str(USERS[service])}
    assert set(facts["Gid"]) == {"0" if service == "grafana" else str(USERS[service])}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts[kind][0], 16) == 0, kind
    assert facts["NoNewPrivs"] == ["1"]
    assert facts["Seccomp"] == ["2"]


@each_service
def test_the_engine_confines_it(containers: dict[str, dict[str, Any]], service: str) -> None:
    host = containers[service]["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host["PidMode"]
    assert host["IpcMode"] == "private"
    assert host["UTSMode"] == ("host" if service == "node-exporter" else "")
    assert 0 < host["Memory"] <= 1 << 30
    assert 0 < host["PidsLimit"] <= 512
    assert not host["NanoCpus"], "an engine with fewer processors refuses it"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert not host["Devices"]


@each_service
def test_it_writes_nowhere_but_to_its_data(stack: Stack, containers: dict[str, dict[str, Any]], service: str) -> None:
    mounts = containers[service]["Mounts"]
    assert {mount["Destination"] for mount in mounts if mount["RW"]} <= WRITABLE.get(service, set())
    assert not any("docker.sock" in mount["Source"] for mount in mounts)
    assert all("noexec" in options for options in containers[service]["HostConfig"]["Tmpfs"].values())
    outcome = stack.shell(
        service, "touch /intruder /etc/intruder /usr/intruder 2>&1; ls /intruder /etc/intruder /usr/intruder"
    )
    assert outcome.returncode != 0
    assert "Read-only file system" in outcome.stdout
    assert stack.shell(service, "cp $(command -v sh) /tmp/intruder && /tmp/intruder -c true").returncode != 0


@each_service
def test_it_is_in_no_network_that_it_does_not_need(containers: dict[str, dict[str, Any]], service: str) -> None:
    networks = containers[service]["NetworkSettings"]["Networks"]
    assert {name.rpartition("_")[2] for name in networks} == NETWORKS[service]
    assert containers[service]["HostConfig"]["NetworkMode"] != "host"


def test_networks_lead_where_they_should(stack: Stack, containers: dict[str, dict[str, Any]]) -> None:
    names = {name for container in containers.values() for name in container["NetworkSettings"]["Networks"]}
    networks = {
        network["Name"].rpartition("_")[2]: network
        for network in json.loads(stack.docker("network", "inspect", *names))
    }
    assert {name: network["Internal"] for name, network in networks.items()} == {
        "database": True,
        "monitoring": True,
        "published": False,
        "outside": False,
    }
    masquerade = networks["published"]["Options"]["com.docker.network.bridge.enable_ip_masquerade"]
    assert masquerade == "false", "what is only published could call out"


@pytest.mark.parametrize("service", ["grafana", "alertmanager", "prometheus", "node-exporter"])
def test_the_database_is_out_of_reach(stack: Stack, containers: dict[str, dict[str, Any]], service: str) -> None:
    (network,) = containers["postgres"]["NetworkSettings"]["Networks"].values()
    outcome = stack.shell(service, f"wget -T 3 -q -O /dev/null http://{network['IPAddress']}:5432/ 2>&1")
    assert outcome.returncode != 0
    assert any(words in outcome.stdout for words in ("unreachable", "timed out")), outcome.stdout


def test_only_what_people_open_is_published_and_only_on_loopback(
    stack: Stack, containers: dict[str, dict[str, Any]]
) -> None:
    for service, container in containers.items():
        bindings = {port: hosts for port, hosts in container["HostConfig"]["PortBindings"].items() if hosts}
        expected = {}
        if service in PUBLISHED:
            expected = {f"{PUBLISHED[service]}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.ports[service])}]}
        assert bindings == expected, service
    for service in PUBLISHED:
        listening = _listening(stack.ports[service])
        assert listening, service
        assert all(address.is_loopback for address in listening), f"{service} listens on {listening}"


@each_service
def test_secrets_come_as_files_to_those_who_need_them(
    containers: dict[str, dict[str, Any]], stack: Stack, service: str
) -> None:
    container = containers[service]
    mounted = {
        Path(mount["Destination"]).name
        for mount in container["Mounts"]
        if mount["Destination"].startswith("/run/secrets/")
    }
    assert mounted == SECRETS.get(service, set())
    folders = {mount["Source"] for mount in container["Mounts"] if mount["Destination"] == f"/etc/{service}/secrets"}
    assert folders == ({str(stack.secrets / service)} if service in secrets.FOLDERS else set())
    visible = json.dumps([container["Config"], container["Args"]])
    process = Path("/proc", str(container["State"]["Pid"]))
    held = (process / "cmdline").read_text() + (process / "environ").read_text()
    for name, value in stack.passwords().items():
        assert value not in visible, f"{name} can be read by `docker inspect`"
        assert value not in held, f"{name} is an argument or a variable of the process"


@each_service
def test_logs_hold_no_secret(stack: Stack, service: str) -> None:
    logs = stack.compose("logs", "--no-color", service)
    for name, value in stack.passwords().items():
        assert value not in logs, name


def test_metrics_are_for_prometheus_alone(stack: Stack) -> None:
    """Neither through the published port nor from inside its networks: without the token there are no metrics."""

    def answer(token: str | None) -> int:
        request = urllib.request.Request(f"{stack.url('proxy')}/metrics")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert [answer(token) for token in (None, "", "guessed")] == [401, 401, 401]
    assert answer(stack.passwords()[secrets.METRICS_TOKEN]) == 200
    for service in ("grafana", "alertmanager", "node-exporter"):
        outcome = stack.shell(service, "wget -T 5 -q -O - http://app:8000/metrics 2>&1")
        assert outcome.returncode != 0
        assert "401" in outcome.stdout, outcome.stdout
        assert "http_requests_total" not in outcome.stdout
    wait_until(lambda: stack.prometheus.targets()["app"] == "up", interval=0.5)


def test_prometheus_can_neither_be_emptied_nor_ended_through_its_port(stack: Stack) -> None:
    for path in ("api/v1/admin/tsdb/delete_series?match[]=up", "api/v1/admin/tsdb/snapshot", "-/quit", "-/reload"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{stack.prometheus.url}/{path}", method="POST"), timeout=60)
        assert re.search(rb"APIs disabled|API is not enabled", refused.value.read()), path


def test_no_web_page_reads_prometheus_through_its_visitors_browser(stack: Stack) -> None:
    own = f"http://localhost:{stack.ports['prometheus']}"
    for origin, allowed in ((own, own), ("http://elsewhere.invalid", None), (f"{own}.elsewhere.invalid", None)):
        request = urllib.request.Request(f"{stack.prometheus.url}/api/v1/query?query=up", headers={"Origin": origin})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == allowed


def test_grafana_is_configured_to_require_a_password(containers: dict[str, dict[str, Any]]) -> None:
    settings = dict(entry.split("=", 1) for entry in containers["grafana"]["Config"]["Env"])
    assert {name: settings[f"GF_{name}"] for name in ("AUTH_ANONYMOUS_ENABLED", "USERS_ALLOW_SIGN_UP")} == {
        "AUTH_ANONYMOUS_ENABLED": "false",
        "USERS_ALLOW_SIGN_UP": "false",
    }
    # Names of files, which Grafana reads by itself.
    assert settings["GF_SECURITY_ADMIN_PASSWORD"] == "$__file{/run/secrets/grafana_admin_password}"
    assert settings["GF_SECURITY_SECRET_KEY"] == "$__file{/run/secrets/grafana_secret_key}"


def test_the_service_s_image_holds_what_it_runs_and_no_more(stack: Stack) -> None:
    found = stack.shell("app", f"for tool in {' '.join(COMPILERS)}; do command -v $tool; done; ls /srv; ls /srv/app")
    tools_and_files = found.stdout.split()
    assert not set(COMPILERS) & set(tools_and_files)
    assert "app" in tools_and_files
    assert not {"tests", "secrets", ".git", ".env", "Dockerfile"} & set(tools_and_files)
    assert stack.shell("app", "python -m pip --version").returncode != 0


def _listening(port: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses on which this machine accepts connections to `port`."""
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:  # LISTEN
                words = bytes.fromhex(address)
                raw = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                addresses.append(ipaddress.ip_address(raw))
    return addresses
