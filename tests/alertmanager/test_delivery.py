"""What arrives where: a real Alertmanager with real receivers, by webhook, mail, Slack and PagerDuty."""

from __future__ import annotations

import time
from pathlib import Path

import yaml

from ops.docker import ComposeStack
from ops.drills.target import Target
from ops.settings import Settings
from tests.alertmanager.config import CONFIG, RECEIVERS, Json, switched_on
from tests.alertmanager.delivery import StartAlertmanager, impatient, like, receiver, send, shown, smtp_server
from tests.running import wait_until


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
