"""Remote write: what Prometheus is given to read, and what is said before samples get lost."""

from __future__ import annotations

import http.server
import logging
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ops import configs, remote_write, settings
from ops.console import log
from ops.errors import OpsError
from ops.programs import find
from tests.running import free_port
from tests.servers import VictoriaMetrics, victoriametrics

OWN = "http://127.0.0.1:8428"
URL = "https://metrics.example/api/v1/push"


@pytest.fixture(scope="module")
def store() -> Iterator[VictoriaMetrics]:
    with victoriametrics() as running:
        yield running


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    (tmp_path / "secrets" / "prometheus").mkdir(parents=True)
    return tmp_path / "secrets" / "prometheus"


def made(secrets: Path, **values: str) -> settings.Settings:
    given = settings.load({**values, "SECRETS_DIR": str(secrets.parent)}, secrets / "no .env")
    given.check()
    return given


def test_without_a_setting_nothing_is_added(secrets: Path) -> None:
    assert remote_write.section(made(secrets), OWN) == ""
    remote_write.check(made(secrets))


@pytest.mark.parametrize("files", [(), ("token",), ("user", "password"), ("token", "ca.crt")])
def test_prometheus_takes_the_file_whatever_the_credentials(
    files: tuple[str, ...], secrets: Path, tmp_path: Path
) -> None:
    for name in files:
        (secrets / f"remote_write_{name}").write_text("something")
    file = tmp_path / "prometheus.yml"
    remote_write.write(
        file, made(secrets, REMOTE_WRITE_URL=URL, LONGTERM_RETENTION="5y", REMOTE_WRITE_TENANT="shop"), OWN
    )
    command = [str(find("promtool")["promtool"]), "check", "config", "--syntax-only", str(file)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    own, elsewhere = yaml.safe_load(file.read_text())["remote_write"]
    assert (own["url"], elsewhere["url"]) == (f"{OWN}/api/v1/write", URL)
    assert "something" not in file.read_text()
    named = {*elsewhere.get("authorization", {}).values(), *elsewhere.get("basic_auth", {}).values()}
    named |= {*elsewhere.get("tls_config", {}).values()}
    assert named == {f"secrets/remote_write_{name}" for name in files}
    assert elsewhere["headers"]["X-Scope-OrgID"] == "shop"


def test_a_change_reaches_a_container_that_has_the_file_mounted(secrets: Path, tmp_path: Path) -> None:
    file = tmp_path / "prometheus.yml"
    remote_write.write(file, made(secrets, REMOTE_WRITE_URL=URL), OWN)
    before = file.stat().st_ino
    remote_write.write(file, made(secrets, REMOTE_WRITE_URL=f"{URL}/other"), OWN)
    assert file.stat().st_ino == before
    assert f"{URL}/other" in file.read_text()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"user": "me"}, "has remote_write_user; REMOTE_WRITE_URL needs remote_write_token alone, or"),
        ({"password": "x"}, "has remote_write_password; REMOTE_WRITE_URL needs"),
        ({"token": "x", "user": "me", "password": "x"}, "has remote_write_token and remote_write_user and remote_"),
        ({"token": "\n"}, "remote_write_token is empty"),
        ({"token": "first\nsecond"}, "remote_write_token contains more than one line"),
        (
            {"token": "schlüssel"},
            "remote_write_token contains more than one line, or characters not allowed in a header",
        ),
        ({"user": "me", "password": "a\nb"}, "remote_write_password contains more than one line"),
        ({"ca.crt": "none"}, r"remote_write_ca\.crt is not a certificate\.$"),
    ],
)
def test_credentials_that_are_not_whole_are_named(files: dict[str, str], says: str, secrets: Path) -> None:
    for name, text in files.items():
        (secrets / f"remote_write_{name}").write_text(text)
    with pytest.raises(OpsError, match=says):
        remote_write.check(made(secrets, REMOTE_WRITE_URL=URL))


def test_a_store_that_accepts_samples_causes_no_message(
    store: VictoriaMetrics, secrets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, log.name):
        remote_write.check(made(secrets, REMOTE_WRITE_URL=f"{store.url}/api/v1/write"))
    assert caplog.text == ""


@pytest.mark.parametrize("path", ["", "/", "/api/v1/receive", "/api/v1/query"])
def test_the_path_of_another_product_is_named_with_the_right_ones(
    path: str, store: VictoriaMetrics, secrets: Path
) -> None:
    with pytest.raises(
        OpsError, match=r"responds with 4\d\d, so it accepts no samples there\. VictoriaMetrics has /api/v1/write"
    ):
        remote_write.check(made(secrets, REMOTE_WRITE_URL=f"{store.url}{path}"))


def test_missing_and_wrong_credentials_are_named_and_right_ones_let_in(secrets: Path) -> None:
    with victoriametrics(flags=("-httpAuth.username=me", "-httpAuth.password=secret")) as store:
        given = made(secrets, REMOTE_WRITE_URL=f"{store.url}/api/v1/write")
        for password in (None, "wrong"):
            if password:
                (secrets / "remote_write_user").write_text("me\n")
                (secrets / "remote_write_password").write_text(password)
            with pytest.raises(OpsError, match=r"responds with 401.*put a token into remote_write_token, or a user"):
                remote_write.check(given)
        (secrets / "remote_write_password").write_text("secret\n")
        remote_write.check(given)


def test_a_store_that_is_down_keeps_nothing_from_starting(secrets: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = f"http://127.0.0.1:{free_port()}/api/v1/write"
    with caplog.at_level(logging.WARNING, log.name):
        remote_write.check(made(secrets, REMOTE_WRITE_URL=address))
    assert f"REMOTE_WRITE_URL: {address} cannot be reached from here now" in caplog.text


def test_a_server_of_another_protocol_is_no_store(secrets: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            client, _ = other.accept()
            with client:
                client.recv(4096)
                client.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")

        threading.Thread(target=greet, daemon=True).start()
        address = f"http://127.0.0.1:{other.getsockname()[1]}/api/v1/write"
        with caplog.at_level(logging.WARNING, log.name):
            remote_write.check(made(secrets, REMOTE_WRITE_URL=address))
    assert f"{address} cannot be reached from here now (no HTTP answer: SSH-2.0" in caplog.text


def test_an_untrusted_certificate_is_reported(secrets: Path, tmp_path: Path) -> None:
    """Samples would never arrive: waiting does not help."""
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    more = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *more], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Store(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = made(secrets, REMOTE_WRITE_URL=f"https://localhost:{server.server_port}/api/v1/write")
        with pytest.raises(OpsError, match=r"certificate of https://localhost:.* is not trusted here \(self-signed"):
            remote_write.check(given)
        (secrets / "remote_write_ca.crt").write_text(certificate.read_text())
        remote_write.check(given)
        server.shutdown()


def test_a_section_of_the_users_own_is_not_doubled(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = tmp_path / "edited.yml"
    edited.write_text(f"{configs.PROMETHEUS.read_text()}\nremote_write:\n  - url: {URL}\n")
    monkeypatch.setattr(remote_write, "PROMETHEUS", edited)
    with pytest.raises(
        OpsError, match=r"^LONGTERM_RETENTION is set, and prometheus\.yml has a remote_write of its own"
    ):
        remote_write.check(made(secrets, LONGTERM_RETENTION="1y"))
    remote_write.check(made(secrets))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"sent": 995}, None),
        ({"sent": 0}, "has got nothing yet"),
        ({"sent": 700}, "is 300 s behind"),
        ({"sent": 700, "failed": 12}, "has refused 12 samples since Prometheus started"),
    ],
)
def test_problems_are_derived_from_prometheus_metrics(values: dict[str, int], problem: str | None) -> None:
    labels = f'remote_name="remote",url="{URL}"'
    name = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"
    sent = f"{name}{{{labels}}} {values['sent']}\n" if values["sent"] else ""  # as Prometheus does
    metrics = f"""\
prometheus_remote_storage_highest_timestamp_in_seconds 1.0e+03
prometheus_remote_storage_shards_max{{{labels}}} 50
{sent}prometheus_remote_storage_samples_failed_total{{{labels}}} {values.get("failed", 0)}
"""
    assert remote_write.report(metrics) == {URL: problem}
    assert remote_write.report("prometheus_remote_storage_highest_timestamp_in_seconds 1.0e+03\n") == {}
