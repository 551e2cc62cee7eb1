"""The messages to each service: within its limits, and without markup from labels.

A real Alertmanager sends to a local server that answers as Slack, Teams, Discord and Telegram do, and refuses what they
refuse.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.controller import Controller
from markdown_it import MarkdownIt

from ops.paths import PROJECT
from tests.alertmanager.config import CONFIG, NULL, Json, switched_on
from tests.alertmanager.delivery import Mailbox, StartAlertmanager, impatient, receiver, send, shown, smtp_server
from tests.running import free_port, wait_until, web_server

TOKEN = "1234:a-bots-token"
CHAT = -1001234567890
SERVICES = ("slack", "teams", "discord", "telegram")
HOSTILE = "<!channel> <@U1> @everyone & [x](https://evil.example) **b** _i_ ~s~ `c` ||d|| </b><script>\n\n# h > q \\"


class Markup(HTMLParser):
    """The tags and the text of HTML; Telegram accepts no other tags than it knows, and only whole ones."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.links, self.open = "", [], []  # type: ignore[var-annotated]
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ("a", "b"), tag
        self.links += [value for name, value in attributes if name == "href"]
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class Services:
    """What they were sent, and what they refused."""

    def __init__(self) -> None:
        self.got: dict[str, list[Json]] = defaultdict(list)
        self.refused: list[str] = []

    def accept(self, path: str, body: bytes) -> tuple[int, str]:
        """Status and answer.

        Raises:
            AssertionError: the service would refuse it, by its documents.
        """
        message = json.loads(body)
        service = path.strip("/")
        if path == f"/bot{TOKEN}/sendMessage":
            service = "telegram"
            assert (int(message["chat_id"]), message["parse_mode"]) == (CHAT, "HTML")
            assert 0 < len(message["text"]) <= 4096  # Bot API, sendMessage; the real one does not count tags
            Markup(message["text"])
        elif service == "discord":
            [embed] = message["embeds"]
            assert 0 < len(embed["title"]) <= 256
            assert 0 < len(embed["description"]) <= 4096
            assert not message["content"], "what mentions users"
        elif service == "teams":
            assert len(body) <= 28 * 1024
            [card] = message["attachments"]
            assert (message["type"], card["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
            assert all(part["text"] for part in card["content"]["body"])
        else:
            assert len(message["attachments"][0]["text"]) <= 40_000  # more is cut off
        self.got[service].append(message)
        sent = {"message_id": 1, "date": 1, "chat": {"id": CHAT, "type": "supergroup"}}
        return {
            "telegram": (200, json.dumps({"ok": True, "result": sent})),
            "discord": (204, ""),
            "teams": (202, ""),
            "slack": (200, "ok"),
        }[service]


@contextmanager
def services() -> Iterator[tuple[str, Services]]:
    """The address of a server that is all of `SERVICES`, and what they got."""
    kept = Services()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, answer = kept.accept(self.path, body)
            except (AssertionError, ValueError, LookupError) as error:
                kept.refused.append(f"{self.path}: {error!r}")
                status, answer = 400, json.dumps({"ok": False, "error_code": 400, "description": "Bad Request"})
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer.encode())))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    with web_server(Handler) as url:
        yield url, kept


def to_all(url: str, folder: Path, *others: str, **changes: object) -> Path:
    """A folder for Alertmanager whose one receiver is all of `SERVICES` and `others`."""
    document = yaml.safe_load(CONFIG.replace(f"receiver: {NULL}", "receiver: all"))
    document["global"] |= {"telegram_api_url": url, **changes}
    wanted = (*SERVICES, *others)
    parts = {name: value for one in document["receivers"] if one["name"] in wanted for name, value in one.items()}
    document["receivers"].append({**parts, "name": "all"})
    secrets = {f"{service}_url": f"{url}/{service}" for service in SERVICES[:3]}
    return impatient(
        yaml.safe_dump(document),
        folder,
        {**secrets, "telegram_token": TOKEN, "pagerduty_key": "key", "smtp_password": "a password"},
    )


def texts(got: dict[str, list[Json]], index: int = 0) -> dict[str, str]:
    """The text of each service's message, title included."""
    slack = got["slack"][index]["attachments"][0]
    embed = got["discord"][index]["embeds"][0]
    card = got["teams"][index]["attachments"][0]["content"]["body"]
    return {
        "slack": f"{slack['title']}\n{slack['text']}",
        "discord": f"{embed['title']}\n{embed['description']}",
        "teams": "\n".join(part["text"] for part in card),
        "telegram": got["telegram"][index]["text"],
    }


def read(service: str, text: str) -> tuple[str, list[str]]:
    """What a reader sees of a message, and where its links lead."""
    if service == "telegram":
        markup = Markup(text)
        return markup.text, markup.links
    if service == "slack":
        link = r"<([^<>|]+)\|(Runbook|Dashboard|all in Alertmanager)>"
        seen = re.sub(link, r"\2", text)
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", seen), seen
        return unescape(seen), [unescape(found[1]) for found in re.finditer(link, text)]
    tokens = [
        child for block in MarkdownIt().enable("strikethrough").parse(text) for child in block.children or [block]
    ]
    kinds = {token.type for token in tokens}
    assert kinds <= {"text", "softbreak", "strong_open", "strong_close", "link_open", "link_close", "text_special"} | {
        "paragraph_open",
        "paragraph_close",
    }, kinds
    return (
        "".join(token.content or "\n" * (token.type == "paragraph_close") for token in tokens).replace("\u200b", ""),
        [str(token.attrs["href"]) for token in tokens if token.type == "link_open"],
    )


def test_each_service_gets_firing_and_resolved_messages(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    firing = shown("DbPoolTimeouts", "DbQueryErrors")
    with services() as (url, kept):
        alertmanager = start_alertmanager(to_all(url, tmp_path))
        send(alertmanager, firing)
        wait_until(lambda: kept.refused or len(kept.got) == len(SERVICES))
        send(alertmanager, firing, resolved=True)
        wait_until(lambda: kept.refused or [len(kept.got[service]) for service in SERVICES] == [2, 2, 2, 2])
    assert kept.refused == []
    fired, over = texts(kept.got), texts(kept.got, 1)
    for service in SERVICES:
        seen, links = read(service, fired[service])
        assert "⚠️ database: 2 alerts (app)" in seen
        for alert in firing:
            assert alert["labels"]["alertname"] in seen
            assert alert["annotations"]["description"] in seen
            assert {alert["annotations"][name] for name in ("runbook_url", "dashboard_url")} <= set(links), links
        assert "The first ones" not in seen
        seen, links = read(service, over[service])
        assert "✅ Resolved: database: 2 alerts (app)" in seen
        assert seen.count("resolved at") == 2
        assert links == []
    assert kept.got["telegram"][0]["disable_web_page_preview"] in (True, "true")


@pytest.mark.parametrize("text", [HOSTILE, "&<>" * 200, "long " * 200], ids=["markup", "escapes", "long"])
def test_hundreds_of_hostile_alerts_are_one_message_within_every_limit(
    start_alertmanager: StartAlertmanager, tmp_path: Path, text: str
) -> None:
    [alert] = shown("DbQueryErrors")
    job = "a<b>&*job*" + "x" * 80
    many = [
        {
            "labels": {**alert["labels"], "query": f"{number}{text}", "job": job},
            "annotations": {
                "summary": f"{text} of {job}",
                "description": f"Query: {text} {number}",
                "runbook_url": "https://wiki.example/runbooks/A.md",
                "dashboard_url": f"https://grafana.example/d/x?var-job=a b&var-query=|>){text[:20]}",
            },
        }
        for number in range(240)
    ]
    with (
        services() as (url, kept),
        receiver() as (pagerduty, pages),
        smtp_server("a password") as (port, mails),
    ):

        def last(service: str) -> str:
            return texts({name: kept.got[name] for name in SERVICES}, -1)[service] if len(kept.got) == 4 else ""

        addresses = {"smtp_smarthost": f"127.0.0.1:{port}", "smtp_require_tls": False, "pagerduty_url": pagerduty}
        alertmanager = start_alertmanager(to_all(url, tmp_path, "email", "pagerduty", **addresses))
        send(alertmanager, many)
        # On a busy machine the first message may come while alerts are still taken in; the next one has all.
        wait_until(
            lambda: kept.refused or (all("of 240: " in last(service) for service in SERVICES) and pages and mails)
        )
        complete = {service: last(service) for service in SERVICES}
        send(alertmanager, many[:120], resolved=True)
        wait_until(lambda: kept.refused or all("resolved at" in last(service) for service in SERVICES))
    assert kept.refused == []
    for mail in mails:
        assert all(len(part.get_content().encode()) < 102_000 for part in mail.iter_parts())
    assert all(len(json.dumps(page)) < 512_000 for page in pages)
    for index in range(min(map(len, kept.got.values()))):
        for service, message in texts(kept.got, index).items():
            assert len(message) < 4_500, service
            seen, links = read(service, message)
            assert not [link for link in links if "evil" in link]
            assert "@everyone" not in message or service in ("slack", "telegram")  # where it mentions no one
    for service, message in complete.items():
        seen, links = read(service, message)
        assert "The first ones of 240: all in Alertmanager" in seen
        assert links[-1] == f"http://localhost:{alertmanager.url.rpartition(':')[2]}"
        assert seen.count("DbQueryErrors") == 5
        assert seen.count(f"Query: {text[:40].strip()}") == 5, seen


def test_a_single_alert_is_its_summary_in_the_title(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    [alert] = shown("PostgresDown")
    alert["annotations"] = {"summary": f"Down {HOSTILE}"}  # without links and description, as rules of others may be
    with services() as (url, kept):
        send(start_alertmanager(to_all(url, tmp_path)), [alert])
        wait_until(lambda: kept.refused or len(kept.got) == len(SERVICES))
    assert kept.refused == []
    for service, message in texts(kept.got).items():
        seen, links = read(service, message)
        assert f"🔥 Down {' '.join(HOSTILE.split())} (postgres)" in seen, service
        assert links == []


def test_a_mail_relay_without_tls_and_login(start_alertmanager: StartAlertmanager, tmp_path: Path) -> None:
    """As docs/notifications.md has it: these lines instead of those of the configuration."""
    guide = (PROJECT / "docs" / "notifications.md").read_text()
    [lines] = re.findall(r"```yaml\n(smtp_.+?)```", guide, re.DOTALL)
    relay = yaml.safe_load(lines)
    document = yaml.safe_load(switched_on('severity="critical"', "email"))
    kept = {name: value for name, value in document["global"].items() if not name.startswith("smtp_")}
    document["global"] = kept | relay
    mailbox, port = Mailbox(""), free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)  # offers neither STARTTLS nor AUTH
    controller.start()
    try:
        document["global"]["smtp_smarthost"] = f"127.0.0.1:{port}"
        send(start_alertmanager(impatient(yaml.safe_dump(document), tmp_path, {})), shown("PostgresDown"))
        wait_until(lambda: mailbox.mails)
    finally:
        controller.stop()
    assert mailbox.mails[0]["Subject"] == "🔥 PostgreSQL is down (postgres)"
    assert mailbox.mails[0]["From"] == relay["smtp_from"]


def test_receivers_are_reached_through_the_proxy_of_the_environment(
    start_alertmanager: StartAlertmanager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = yaml.safe_load(CONFIG.replace(f"receiver: {NULL}", "receiver: both"))
    with receiver() as (proxy, asked), receiver() as (direct, got):
        hooks = [{"url": "http://hooks.invalid/hook"}, {"url": direct}]
        document["receivers"].append({"name": "both", "webhook_configs": hooks})
        folder = impatient(yaml.safe_dump(document), tmp_path, {})
        with monkeypatch.context() as environment:
            for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy"):
                environment.delenv(name, raising=False)
            environment.setenv("http_proxy", proxy.removesuffix("/hook"))
            alertmanager = start_alertmanager(folder)
        send(alertmanager, shown("PostgresDown"))
        wait_until(lambda: asked and got)
    for messages in (asked, got):  # one that listens on this machine is asked directly
        assert {message["alerts"][0]["labels"]["alertname"] for message in messages} == {"PostgresDown"}
