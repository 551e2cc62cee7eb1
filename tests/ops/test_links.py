"""Links in messages lead to the addresses of the settings, whatever path those have; no health check minds it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import yaml

from ops import servers, settings
from ops.paths import PROJECT
from ops.processes import ProcessStack
from tests.alertmanager.delivery import receiver
from tests.ops.links import LINKS
from tests.running import start, wait_until
from tests.servers import Alertmanager, Prometheus

RULE = """
groups:
  - name: test
    interval: 1s
    rules:
      - alert: Always
        expr: vector(1)
        annotations:
          runbook: "{{ $externalLabels.runbooks_url }}/Always.md"
          dashboard: "{{ $externalLabels.grafana_url }}/d/sightline-http"
"""


def test_settings_reach_every_server(tmp_path: Path) -> None:
    with_slashes = {name: f"{address}/" for name, address in LINKS.items()}
    stack = ProcessStack(settings.load(with_slashes, tmp_path / "no .env"))
    made = {server.name: server for server in stack.servers()}
    assert made["prometheus"].environment == {name: LINKS[name] for name in ("GRAFANA_URL", "RUNBOOKS_URL")}
    [external] = [word for word in made["prometheus"].command if word.startswith("--web.external-url=")]
    assert external.removesuffix("/classic").endswith(LINKS["PROMETHEUS_URL"])
    assert f"--web.external-url={LINKS['ALERTMANAGER_URL']}" in made["alertmanager"].command
    grafana = servers.grafana(tmp_path, 3000, "", "", tmp_path, str(tmp_path), "", stack.settings.values)
    assert grafana.environment["GF_SERVER_ROOT_URL"] == LINKS["GRAFANA_URL"]


def test_links_in_a_message_lead_to_the_addresses_of_the_settings(tmp_path: Path) -> None:
    with receiver() as (url, got):
        routes = {"receiver": "hook", "group_wait": "0s"}
        receivers = [{"name": "hook", "webhook_configs": [{"url": url}]}]
        (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump({"route": routes, "receivers": receivers}))
        alertmanager: Alertmanager = start(
            lambda port: servers.alertmanager(tmp_path / "alertmanager.yml", tmp_path / "data", port, settings=LINKS),
            tmp_path,
            Alertmanager,
        )
        (tmp_path / "rules.yml").write_text(RULE)
        config = yaml.safe_load((PROJECT / "prometheus" / "prometheus.yml").read_text())
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager.url.partition("//")[2]]}]}]
        config |= {"rule_files": ["rules.yml"], "scrape_configs": []}
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        prometheus: Prometheus | None = None
        try:
            prometheus = start(
                lambda port: servers.prometheus(
                    tmp_path / "prometheus.yml",
                    tmp_path / "tsdb",
                    port,
                    settings=LINKS,
                    # An alert that fires before Alertmanager is discovered is sent again a minute later by default.
                    flags=("--rules.alert.resend-delay=1s",),
                ),
                tmp_path,
                Prometheus,
            )
            wait_until(lambda: got)
            own = f"{prometheus.url}/user/runbooks/Watchdog.md"  # as those read it who have no other RUNBOOKS_URL
            with urllib.request.urlopen(own, timeout=30) as answer:
                assert answer.read() == (PROJECT / "docs" / "runbooks" / "Watchdog.md").read_bytes()
        finally:
            alertmanager.stop()
            if prometheus:
                prometheus.stop()
    message = got[0]
    [alert] = message["alerts"]
    assert message["externalURL"] == LINKS["ALERTMANAGER_URL"]
    assert alert["generatorURL"].startswith(f"{LINKS['PROMETHEUS_URL']}/")
    assert alert["annotations"] == {
        "runbook": "https://wiki.example/runbooks/Always.md",
        "dashboard": "https://monitoring.example/grafana/d/sightline-http",
    }
    assert "localhost" not in json.dumps(message)
