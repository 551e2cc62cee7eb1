"""What arrives where: a real Alertmanager with real receivers, by webhook, mail, Slack and PagerDuty."""

from __future__ import annotations

import email
import email.policy
import json
import time
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

from ops.docker import ComposeStack
from ops.drills.target import Target
from ops.settings import Settings
from tests.alertmanager.config import CONFIG, FOLDER, RECEIVERS, Json, switched_on
from tests.prometheus.rules import unit_tests
from tests.running import free_port, wait_until, web_server
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
    """What an SMTP server received from whoever knew the password."""

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


def test_a_dead_database_is_one_page(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    consequences = [
        "AvailabilityBurn",
        "LatencyBurn",
        "HttpEndpointFailing",
        "HttpNewException",
        "HttpRequestsPilingUp",
        "DbPoolNearlyExhausted",
        "DbPoolTimeouts",
        "DbQueryErrors",
        "DbCommitsFailing",
    ]
    of_others = ["HostMemoryLow", "LlmCostHigh"]
    with receiver() as (url, got):
        folder = impatient(CONFIG.replace('receiver: "null"', "receiver: webhook"), tmp_path, {"webhook_url": url})
        alertmanager = start_alertmanager(folder)
        # The cause first, as the real group_wait of 30 s has it; here all waits are of a second.
        send(alertmanager, shown("PostgresDown"))
        wait_until(lambda: got)
        send(alertmanager, shown(*consequences, *of_others))

        def states() -> dict[str, str]:
            return {alert["labels"]["alertname"]: alert["status"]["state"] for alert in alertmanager.alerts()}

        wait_until(lambda: set(states().values()) == {"active", "suppressed"})
        wait_until(lambda: len(got) == 3)
        time.sleep(3)  # three group intervals: what is muted stays muted
        sent = sorted(alert["labels"]["alertname"] for message in got for alert in message["alerts"])
        assert sent == sorted(["PostgresDown", *of_others])
        assert {name for name, state in states().items() if state == "suppressed"} == set(consequences)
        seen = Target("", "", alertmanager.url, ComposeStack(Settings({})), None)  # what `make incident` says of it
        assert seen.active() == {"PostgresDown", *of_others}
        assert seen.muted() == set(consequences)

        # The same symptoms of a service that has another database, or is somewhere else, are news; and so is what no
        # label ties to any database, although one that is nobody's is down.
        news = [
            like("AvailabilityBurn", job="shop", service="shop"),
            like("AvailabilityBurn", environment="staging"),
            like("PostgresDown", job="analytics", service=""),
            like("AvailabilityBurn", job="blog", service=""),
        ]
        before = len(got)
        send(alertmanager, news)

        def is_told(alert: Json) -> bool:
            return any(one["labels"] == alert["labels"] for message in got[before:] for one in message["alerts"])

        wait_until(lambda: all(map(is_told, news)))


def test_a_service_that_is_down_is_one_page(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    down = shown("TargetDown")[0]
    down["labels"] |= {"job": "app", "instance": "a:8000", "service": "sightline"}
    with receiver() as (url, got):
        folder = impatient(CONFIG.replace('receiver: "null"', "receiver: webhook"), tmp_path, {"webhook_url": url})
        alertmanager = start_alertmanager(folder)
        # The cause first, as the real group_wait of 30 s has it; here all waits are of a second.
        send(alertmanager, [one for one in shown("ServiceDown") if one["labels"]["job"] == "app"])
        wait_until(lambda: got)
        shown_once = {str(alert["labels"]): alert for alert in shown("AvailabilityBurn", "LlmStuck", "DbPoolTimeouts")}
        muted = [*shown_once.values(), down]
        send(alertmanager, muted)
        wait_until(
            lambda: [alert["status"]["state"] for alert in alertmanager.alerts()].count("suppressed") == len(muted)
        )
        time.sleep(3)
        assert [alert["labels"]["alertname"] for message in got for alert in message["alerts"]] == ["ServiceDown"]


def test_a_rack_without_power_is_one_message(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    """A host, a database's exporter and an instance of a service; what is lost later is news, in the same message."""
    lost = [like("TargetDown", job=job, instance=f"{job}:1") for job in ("node", "postgres", "app")]
    later = like("TargetVanished", job="cache", instance="cache:1")
    with receiver() as (url, got):
        folder = impatient(CONFIG.replace('receiver: "null"', "receiver: webhook"), tmp_path, {"webhook_url": url})
        alertmanager = start_alertmanager(folder)
        send(alertmanager, lost)
        wait_until(lambda: got)
        assert {one["labels"]["job"] for one in got[0]["alerts"]} == {"node", "postgres", "app"}
        send(alertmanager, [later])
        wait_until(lambda: len(got) == 2)
    assert {one["labels"]["job"] for one in got[1]["alerts"]} == {"node", "postgres", "app", "cache"}
    assert {message["groupLabels"]["area"] for message in got} == {"monitoring"}


def test_delivery_by_webhook_mail_slack_and_pagerduty(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    """Firing, then resolved; two alerts of one area in one message; rendered by our templates; secrets from files."""
    config = CONFIG.replace('receiver: "null"', "receiver: all").replace(
        "smtp_require_tls: true", "smtp_require_tls: false"
    )
    document = yaml.safe_load(config)
    parts = {name: value for r in document["receivers"] if r["name"] in RECEIVERS[:3] for name, value in r.items()}
    webhook = next(receiver for receiver in document["receivers"] if receiver["name"] == "webhook")
    document["receivers"].append({**parts, **webhook, "name": "all"})
    with (
        receiver() as (url, got),
        receiver() as (slack_url, slacks),
        receiver() as (pagerduty_url, pages),
        smtp_server("a password") as (port, mails),
    ):
        document["global"] |= {"smtp_smarthost": f"127.0.0.1:{port}", "pagerduty_url": pagerduty_url}
        secrets = {
            "webhook_url": url,
            "slack_url": slack_url,
            "pagerduty_key": "0123456789abcdef",
            "smtp_password": "a password",
        }
        alertmanager = start_alertmanager(impatient(yaml.safe_dump(document), tmp_path, secrets))
        firing = shown("DbPoolTimeouts", "DbQueryErrors")
        send(alertmanager, firing)
        wait_until(lambda: got and slacks and mails and pages)
        send(alertmanager, firing, resolved=True)
        wait_until(lambda: len(got) > 1 and len(slacks) > 1 and len(mails) > 1 and len(pages) > 1)

    first, last = got[0], got[-1]
    assert (first["status"], last["status"]) == ("firing", "resolved")
    assert first["groupLabels"] == {"area": "database", "job": "app"}
    assert {a["labels"]["alertname"] for a in first["alerts"]} == {"DbPoolTimeouts", "DbQueryErrors"}

    texts = {alert["labels"]["alertname"]: alert["annotations"] for alert in firing}
    fired, resolved = mails[0], mails[-1]
    assert fired["Subject"] == "⚠️ database: 2 alerts (app)"
    assert resolved["Subject"] == "✅ Resolved: database: 2 alerts (app)"
    assert (fired["To"], fired["From"]) == (parts["email_configs"][0]["to"], document["global"]["smtp_from"])
    for kind in ("plain", "html"):
        part = fired.get_body((kind,))
        assert part is not None
        body = part.get_content().replace("&#39;", "'").replace("&amp;", "&")
        for expected in texts.values():
            for name in ("description", "runbook_url", "dashboard_url"):
                assert expected[name] in body, f"{name} is missing in the {kind} part"
        assert "<no value>" not in body
        part = resolved.get_body((kind,))
        assert part is not None
        body = part.get_content()
        assert "resolved at" in body
        assert all(expected["summary"] in body for expected in texts.values())
        assert not any(expected["runbook_url"] in body for expected in texts.values())

    attachment = slacks[0]["attachments"][0]
    assert attachment["title"] == "⚠️ database: 2 alerts (app)"
    assert attachment["color"] == "warning"
    assert attachment["title_link"] in {expected["dashboard_url"] for expected in texts.values()}
    for expected in texts.values():
        assert expected["description"] in attachment["text"]
        assert f"<{expected['runbook_url']}|Runbook>" in attachment["text"]
    assert max(len(line) for line in attachment["text"].splitlines() if "|" not in line) < 200
    assert slacks[-1]["attachments"][0]["color"] == "good"

    assert [(page["event_action"], page["routing_key"]) for page in (pages[0], pages[-1])] == [
        ("trigger", "0123456789abcdef"),
        ("resolve", "0123456789abcdef"),
    ]
    assert pages[0]["dedup_key"] == pages[-1]["dedup_key"]
    page = pages[0]["payload"]
    assert (page["summary"], page["severity"]) == ("⚠️ database: 2 alerts (app)", "warning")
    assert all(expected["description"] in str(page["custom_details"]) for expected in texts.values())


def test_one_alert_is_named_in_the_title(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    with receiver() as (url, got):
        folder = impatient(switched_on('severity="critical"', "slack"), tmp_path, {"slack_url": url})
        send(start_alertmanager(folder), shown("PostgresDown"))
        wait_until(lambda: got)
    attachment = got[0]["attachments"][0]
    assert attachment["title"] == "🔥 PostgreSQL is down (postgres)"
    assert attachment["color"] == "danger"


def test_the_heartbeat_beats_once_a_minute(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    """With its own two intervals, but everything five times as fast; a second route counts the group intervals.

    Those are of four seconds: where a delivery took longer than one of them, none would be counted for it.
    """
    watchdog = next(one for one in yaml.safe_load(CONFIG)["route"]["routes"] if "Watchdog" in str(one["matchers"]))
    interval, repeat = (int(watchdog[f"{name}_interval"].removesuffix("s")) for name in ("group", "repeat"))
    flushes = repeat // interval + 1  # a repetition is due at the first group interval after it
    assert flushes * interval == 60
    assert repeat % interval >= interval / 2, "at a multiple, or hardly beyond it, one flush more or less would decide"
    with receiver() as (url, got):
        config = switched_on('alertname="Watchdog"', "heartbeat")
        assert f"repeat_interval: {repeat}s" in config
        config = config.replace(f"repeat_interval: {repeat}s", f"repeat_interval: {1000 * repeat // 5}ms")
        every = "group_by: [alertname], group_wait: 0s, group_interval: 20s, repeat_interval: 1ms, continue: true"
        clock = f"    - {{matchers: ['alertname=\"Watchdog\"'], receiver: clock, {every}}}\n"
        config = config.replace("\n  routes:\n", f"\n  routes:\n{clock}", 1).rstrip()
        config += f"\n\n  - {{name: clock, webhook_configs: [{{url: '{url}'}}]}}\n"
        folder = impatient(config, tmp_path, {"heartbeat_url": url}, wait=f"{interval // 5}s")
        send(start_alertmanager(folder), shown("Watchdog"))
        wait_until(lambda: [message["receiver"] for message in got].count("heartbeat") >= 3)
    order = [message["receiver"] for message in got]
    assert set(order) == {"heartbeat", "clock"}
    assert {alert["labels"]["alertname"] for message in got for alert in message["alerts"]} == {"Watchdog"}
    first = order.index("heartbeat")
    last = len(order) - 1 - order[::-1].index("heartbeat")
    assert (
        abs(order[first:last].count("clock") - (order.count("heartbeat") - 1) * flushes) <= 1
    )  # the two routes' timers are not in step
