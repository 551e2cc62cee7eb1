"""Who hears of what: routes, inhibitions, receivers and templates, in a real Alertmanager with real receivers."""

from __future__ import annotations

import email
import email.policy
import json
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from drills.stacks import ComposeServices, Stack
from native.packages import find
from native.paths import PROJECT
from tests.prometheus.rules import UNIT_TESTS, alerts, expected_labels, promtool, unit_tests
from tests.servers import Alertmanager, free_port, wait_until

FOLDER = PROJECT / "alertmanager"
CONFIG = (FOLDER / "alertmanager.yml").read_text()
RECEIVERS = ("slack", "email", "pagerduty", "webhook", "heartbeat")
Json = dict[str, Any]


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(find("amtool")["amtool"]), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def receiver_of(config: Path, **labels: str) -> str:
    """The receiver that amtool finds for an alert with these labels."""
    matchers = [f"{name}={value}" for name, value in labels.items()]
    run = amtool("config", "routes", "test", f"--config.file={config}", *matchers)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def switched_on(matcher: str, receiver: str) -> str:
    """The configuration with one `nowhere` replaced, as its comments ask: that of the route with this matcher."""
    before, found, after = CONFIG.partition(f"matchers: [{matcher}]")
    assert found, f"no route matches {matcher}"
    head, nowhere, tail = after.partition("receiver: nowhere")
    assert nowhere
    return before + found + head + f"receiver: {receiver}" + tail


def sent_elsewhere(severity: str, receiver: str) -> str:
    """The configuration with a receiver of their own for machines and monitoring, as its comments say."""
    before, found, after = CONFIG.partition(f'matchers: [severity="{severity}"]')
    head, child, tail = after.partition('        - matchers: [area=~"host|monitoring"]\n')
    assert found
    assert child
    return before + found + head + child + f"          receiver: {receiver}\n" + tail


# The configuration


def test_alertmanager_accepts_the_configuration() -> None:
    check = amtool("check-config", FOLDER / "alertmanager.yml")
    assert check.returncode == 0, check.stdout + check.stderr


def test_by_default_nothing_is_delivered_to_anybody() -> None:
    for alert in alerts():
        assert receiver_of(FOLDER / "alertmanager.yml", alertname=alert.name, **alert.labels) == "nowhere"
    nowhere = next(receiver for receiver in yaml.safe_load(CONFIG)["receivers"] if receiver["name"] == "nowhere")
    assert nowhere == {"name": "nowhere"}
    assert "nothing is sent to anybody" in " ".join(line.strip("# ") for line in CONFIG.splitlines()[:8])


def test_secrets_are_files() -> None:
    config = yaml.safe_load(CONFIG)
    secret = re.compile(r"(url|key|password|token|secret)(_file)?$")
    settings = [config["global"], *(s for r in config["receivers"] for v in r.values() if v != r["name"] for s in v)]
    public = ("client_url", "icon_url")
    found = [(n, value) for own in settings for n, value in own.items() if secret.search(n) and n not in public]
    assert len(found) == len(RECEIVERS)
    for name, value in found:
        assert name.endswith("_file"), name
        assert re.fullmatch(r"secrets/\w+", value), value


def alerts_of(severity: str, *areas: str) -> list[dict[str, str]]:
    return [{"severity": severity, "area": area} for area in areas]


OURS, OTHERS = ("http", "llm", "database"), ("host", "monitoring")


@pytest.mark.parametrize(
    ("config", "labels", "others"),
    [
        (
            lambda receiver: switched_on('severity="critical"', receiver),
            alerts_of("critical", *OURS, *OTHERS),  # a full disk wakes somebody, too
            [*alerts_of("warning", *OURS, *OTHERS), *alerts_of("info", "http")],
        ),
        (
            lambda receiver: switched_on('severity="warning"', receiver),
            alerts_of("warning", *OURS, *OTHERS),
            [*alerts_of("critical", *OURS, *OTHERS), *alerts_of("info", "http")],
        ),
        (
            lambda receiver: sent_elsewhere("critical", receiver),
            alerts_of("critical", *OTHERS),
            [*alerts_of("critical", *OURS), *alerts_of("warning", *OTHERS)],
        ),
        (
            lambda receiver: sent_elsewhere("warning", receiver),
            alerts_of("warning", *OTHERS),
            [*alerts_of("warning", *OURS), *alerts_of("critical", *OTHERS)],
        ),
    ],
    ids=["critical", "warning", "critical elsewhere", "warning elsewhere"],
)
def test_one_line_switches_a_receiver_on(
    config: Callable[[str], str], labels: list[dict[str, str]], others: list[dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "templates").symlink_to(FOLDER / "templates")
    file = tmp_path / "alertmanager.yml"
    for receiver in RECEIVERS:
        file.write_text(config(receiver))
        assert amtool("check-config", file).returncode == 0
        assert {receiver_of(file, **own) for own in labels} == {receiver}
        assert {receiver_of(file, **other) for other in others} == {"nowhere"}


def test_the_watchdog_goes_to_the_heartbeat_alone(tmp_path: Path) -> None:
    (tmp_path / "templates").symlink_to(FOLDER / "templates")
    config = tmp_path / "alertmanager.yml"
    config.write_text(switched_on('alertname="Watchdog"', "heartbeat"))
    assert receiver_of(config, alertname="Watchdog", severity="none", area="monitoring") == "heartbeat"
    assert receiver_of(config, alertname="TargetDown", severity="warning", area="monitoring") == "nowhere"


# Inhibition


def matches(matchers: list[str], labels: dict[str, str]) -> bool:
    """Whether Alertmanager's matchers, written in UTF-8 syntax with one operator each, accept the labels."""
    for matcher in matchers:
        for part in re.findall(r'\w+(?:=~|!~|!=|=)"[^"]*"', matcher):
            name, operator, value = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', part).groups()  # type: ignore[union-attr]
            own = labels.get(name, "")
            equal = re.fullmatch(value, own) is not None if "~" in operator else value == own
            if equal != (operator in ("=", "=~")):
                return False
    return True


INHIBITIONS = yaml.safe_load(CONFIG)["inhibit_rules"]
PLACE = {"environment": "staging", "region": "north"}  # labels of targets, for those who have several places
EVERY = [labels for own in expected_labels().values() for labels in own]


@pytest.mark.parametrize("rule", INHIBITIONS, ids=lambda rule: rule["source_matchers"][0])
def test_labels_that_must_be_equal_exist_on_both_sides(rule: Json) -> None:
    for side in ("source_matchers", "target_matchers"):
        matched = [labels for labels in EVERY if matches(rule[side], labels)]
        assert matched, f"{side} match no alert"
        for labels in matched:
            needed = set(rule["equal"]) - PLACE.keys()
            assert needed <= labels.keys(), f"{labels['alertname']} lacks {needed - labels.keys()}"


def test_what_says_where_a_target_is_stays_on_the_alerts_that_compare_it(tmp_path: Path) -> None:
    """The alerts' own unit tests, with two labels more on every series."""
    placed = [rule for rule in INHIBITIONS if PLACE.keys() <= set(rule["equal"])]
    assert [rule for rule in INHIBITIONS if rule not in placed and "instance" not in rule["equal"]] == []
    names = {
        labels["alertname"]
        for rule in placed
        for side in ("source_matchers", "target_matchers")
        for labels in EVERY
        if matches(rule[side], labels)
    }
    extra = ", ".join(f'{name}="{value}"' for name, value in PLACE.items())
    proven = set()
    for file in UNIT_TESTS.glob("*.yml"):
        document = yaml.safe_load(file.read_text())
        document["rule_files"] = [str((UNIT_TESTS / name).resolve()) for name in document["rule_files"]]
        for test in document["tests"]:
            for given in test.get("input_series", ()):
                given["series"] = given["series"].replace("{", f"{{{extra}, ", 1)
            test.pop("promql_expr_test", None)
            test["alert_rule_test"] = [
                check for check in test.get("alert_rule_test", ()) if check["alertname"] in names
            ]
            for check in test["alert_rule_test"]:
                for alert in check.get("exp_alerts") or ():
                    alert["exp_labels"] |= PLACE
                    proven.add(check["alertname"])
        (tmp_path / file.name).write_text(yaml.safe_dump(document))
    assert proven == names
    run = promtool("test", "rules", *tmp_path.glob("*.yml"))
    assert run.returncode == 0, run.stdout + run.stderr


# Live: a real Alertmanager and real receivers


def shown(*names: str) -> list[Json]:
    """Alerts as the unit tests see them fire: what Prometheus would send, with every label and annotation."""
    found = []
    for _, test in unit_tests():
        for check in test.get("alert_rule_test", ()):
            if test["name"] == check["alertname"] and check["alertname"] in names:
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
    """An alert as `shown`, with other labels; an empty one is left out."""
    [alert] = shown(name)
    return {**alert, "labels": {key: value for key, value in {**alert["labels"], **labels}.items() if value}}


def send(alertmanager: Alertmanager, found: list[Json], resolved: bool = False) -> None:
    now = datetime.now(UTC)
    times = {
        "startsAt": (now - timedelta(minutes=10)).isoformat(),
        "endsAt": (now if resolved else now + timedelta(hours=1)).isoformat(),
    }
    request = urllib.request.Request(
        f"{alertmanager.url}/api/v2/alerts",
        json.dumps([{**alert, **times} for alert in found]).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def impatient(config: str, folder: Path, secrets: dict[str, str]) -> Path:
    """A folder for Alertmanager: the configuration with waits of a second, the templates, and the secrets."""
    document = yaml.safe_load(
        config.replace("secrets/", f"{folder}/secrets/")
    )  # relative names depend on where it starts

    def hurry(route: Json) -> None:
        route |= {name: "1s" for name in ("group_wait", "group_interval") if name in route}
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
def web_server() -> Iterator[tuple[str, list[Json]]]:
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
    finally:
        server.shutdown()
        server.server_close()


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
    of_others = ["HostMemoryLow", "LlmErrors"]
    with web_server() as (url, got):
        folder = impatient(CONFIG.replace("receiver: nowhere", "receiver: webhook"), tmp_path, {"webhook_url": url})
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
        told = sorted(alert["labels"]["alertname"] for message in got for alert in message["alerts"])
        assert told == sorted(["PostgresDown", *of_others])
        assert {name for name, state in states().items() if state == "suppressed"} == set(consequences)
        seen = Stack("", "", alertmanager.url, ComposeServices(), None)  # what `make incident` says of it
        assert seen.delivered() == {"PostgresDown", *of_others}
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
    with web_server() as (url, got):
        folder = impatient(CONFIG.replace("receiver: nowhere", "receiver: webhook"), tmp_path, {"webhook_url": url})
        alertmanager = start_alertmanager(folder)
        # The cause first, as the real group_wait of 30 s has it; here all waits are of a second.
        send(alertmanager, shown("ServiceDown"))
        wait_until(lambda: got)
        send(alertmanager, [*shown("AvailabilityBurn", "LlmStuck", "DbPoolTimeouts"), down])
        wait_until(lambda: [alert["status"]["state"] for alert in alertmanager.alerts()].count("suppressed") == 4)
        time.sleep(3)
        assert [alert["labels"]["alertname"] for message in got for alert in message["alerts"]] == ["ServiceDown"]


def test_delivery_by_webhook_mail_slack_and_pagerduty(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    """Firing, then resolved; two alerts of one area in one message; rendered by our templates; secrets from files."""
    config = CONFIG.replace("receiver: nowhere", "receiver: all").replace(
        "smtp_require_tls: true", "smtp_require_tls: false"
    )
    document = yaml.safe_load(config)
    parts = {name: value for r in document["receivers"] if r["name"] in RECEIVERS[:3] for name, value in r.items()}
    webhook = next(receiver for receiver in document["receivers"] if receiver["name"] == "webhook")
    document["receivers"].append({**parts, **webhook, "name": "all"})
    with (
        web_server() as (url, got),
        web_server() as (slack_url, slacks),
        web_server() as (pagerduty_url, pages),
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
    assert (fired["To"], fired["From"]) == ("oncall@example.com", "sightline@example.com")
    for kind in ("plain", "html"):
        part = fired.get_body((kind,))
        assert part is not None
        body = part.get_content().replace("&#39;", "'").replace("&amp;", "&")
        for told in texts.values():
            for name in ("description", "runbook_url", "dashboard_url"):
                assert told[name] in body, f"{name} is missing in the {kind} part"
        assert "<no value>" not in body
        part = resolved.get_body((kind,))
        assert part is not None
        body = part.get_content()
        assert "resolved at" in body
        assert all(told["summary"] in body for told in texts.values())
        assert not any(told["runbook_url"] in body for told in texts.values())

    attachment = slacks[0]["attachments"][0]
    assert attachment["title"] == "⚠️ database: 2 alerts (app)"
    assert attachment["color"] == "warning"
    assert attachment["title_link"] in {told["dashboard_url"] for told in texts.values()}
    for told in texts.values():
        assert told["description"] in attachment["text"]
        assert f"<{told['runbook_url']}|Runbook>" in attachment["text"]
    assert max(len(line) for line in attachment["text"].splitlines() if "|" not in line) < 200
    assert slacks[-1]["attachments"][0]["color"] == "good"

    assert [(page["event_action"], page["routing_key"]) for page in (pages[0], pages[-1])] == [
        ("trigger", "0123456789abcdef"),
        ("resolve", "0123456789abcdef"),
    ]
    assert pages[0]["dedup_key"] == pages[-1]["dedup_key"]
    page = pages[0]["payload"]
    assert (page["summary"], page["severity"]) == ("⚠️ database: 2 alerts (app)", "warning")
    assert all(told["description"] in str(page["custom_details"]) for told in texts.values())


def test_two_ways_at_once_as_the_guide_has_them(tmp_path: Path) -> None:
    """docs/notifications.md: one receiver with the parts of two."""
    guide = " ".join((PROJECT / "docs" / "notifications.md").read_text().split())
    anchors = {name: f"{name}: &{name.partition('_')[0]}" for name in ("slack_configs", "pagerduty_configs")}
    [both] = re.findall(r"`(- \{name: both.+?\})`", guide)
    config = CONFIG.rstrip() + f"\n  {both}\n"
    for plain, anchored in anchors.items():
        assert f"`{anchored}`" in guide
        config = config.replace(f"    {plain}:", f"    {anchored}", 1)
    (tmp_path / "templates").symlink_to(FOLDER / "templates")
    file = tmp_path / "alertmanager.yml"
    file.write_text(
        config.replace('severity="critical"]\n      receiver: nowhere', 'severity="critical"]\n      receiver: both')
    )
    check = amtool("check-config", file)
    assert check.returncode == 0, check.stdout + check.stderr
    assert receiver_of(file, severity="critical", area="http") == "both"
    receiver = yaml.safe_load(file.read_text())["receivers"][-1]
    assert {name for name in receiver if name != "name"} == anchors.keys()


def test_one_alert_is_named_in_the_title(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    with web_server() as (url, got):
        folder = impatient(switched_on('severity="critical"', "slack"), tmp_path, {"slack_url": url})
        send(start_alertmanager(folder), shown("PostgresDown"))
        wait_until(lambda: got)
    attachment = got[0]["attachments"][0]
    assert attachment["title"] == "🔥 PostgreSQL is down (postgres)"
    assert attachment["color"] == "danger"


def test_the_heartbeat_beats(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    with web_server() as (url, got):
        config = switched_on('alertname="Watchdog"', "heartbeat").replace("repeat_interval: 1m", "repeat_interval: 1s")
        folder = impatient(config, tmp_path, {"heartbeat_url": url})
        send(start_alertmanager(folder), shown("Watchdog"))
        wait_until(lambda: len(got) >= 3)
    assert {alert["labels"]["alertname"] for message in got for alert in message["alerts"]} == {"Watchdog"}
