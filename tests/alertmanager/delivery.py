"""Alerts as Prometheus sends them, and servers that receive what Alertmanager makes of them."""

from __future__ import annotations

import email
import email.policy
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.alertmanager.config import FOLDER, Json
from tests.prometheus.rules import unit_tests
from tests.running import free_port, web_server
from tests.servers import Alertmanager


def shown(*names: str) -> list[Json]:
    """Alerts as the first unit test of each sees them fire: all labels and annotations that Prometheus would send."""
    found: list[Json] = []
    for _, test in unit_tests():
        seen = {alert["labels"]["alertname"] for alert in found}
        for check in test.get("alert_rule_test", ()):
            if test["name"] == check["alertname"] and check["alertname"] in {*names} - seen:
                found += [
                    {
                        "labels": {"alertname": check["alertname"], **alert["exp_labels"]},
                        "annotations": alert["exp_annotations"],
                    }
                    for alert in check.get("exp_alerts") or ()
                ]
    assert {alert["labels"]["alertname"] for alert in found} == set(names)
    return found


def like(name: str, **labels: str) -> Json:
    """An alert as the first that is `shown`, with other labels; an empty one is left out."""
    alert, *_ = shown(name)
    return {**alert, "labels": {key: value for key, value in {**alert["labels"], **labels}.items() if value}}


def send(alertmanager: Alertmanager, found: list[Json], resolved: bool = False) -> None:
    now = datetime.now(UTC)
    # One that fires begins when it arrives: if it were older than the group's wait, be it because this machine is slow,
    # Alertmanager would send it at once, without the others of its group.
    times = {"startsAt": (now - timedelta(minutes=10)).isoformat(), "endsAt": now.isoformat()} if resolved else {}
    request = urllib.request.Request(
        f"{alertmanager.url}/api/v2/alerts",
        json.dumps([{**alert, **times} for alert in found]).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def impatient(config: str, folder: Path, secrets: dict[str, str], wait: str = "1s") -> Path:
    """A folder for Alertmanager: the configuration with waits of `wait`, the templates, and the secrets."""
    document = yaml.safe_load(
        config.replace("secrets/", f"{folder}/secrets/")
    )  # relative names depend on where it starts

    def hurry(route: Json) -> None:
        route |= {name: wait for name in ("group_wait", "group_interval") if name in route}
        for child in route.get("routes", ()):
            hurry(child)

    hurry(document["route"])
    (folder / "secrets").mkdir()
    for name, value in secrets.items():
        (folder / "secrets" / name).write_text(value)
    (folder / "templates").symlink_to(FOLDER / "templates")
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


@contextmanager
def receiver() -> Iterator[tuple[str, list[Json]]]:
    """A web server's address, and the JSON documents that it was sent."""
    got: list[Json] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *arguments: Any) -> None:
            pass

    with web_server(Handler) as url:
        yield f"{url}/hook", got


class Mailbox:
    """What an SMTP server received from clients with the password."""

    def __init__(self, password: str) -> None:
        self.password = password.encode()
        self.mails: list[EmailMessage] = []

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, how: str, data: Any) -> AuthResult:
        known = isinstance(data, LoginPassword) and data.password == self.password
        return AuthResult(success=known, handled=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        mail = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@contextmanager
def smtp_server(password: str) -> Iterator[tuple[int, list[EmailMessage]]]:
    mailbox = Mailbox(password)
    port = free_port()
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=port,
        authenticator=mailbox.authenticate,
        auth_required=True,
        auth_require_tls=False,
        auth_exclude_mechanism=["LOGIN"],  # its prompts are not those that Go's client knows
    )
    controller.start()
    try:
        yield port, mailbox.mails
    finally:
        controller.stop()


StartAlertmanager = Callable[..., Alertmanager]
