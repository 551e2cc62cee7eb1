"""docs/metrics.md says what the running service exposes: no more and no less; nothing else is asked for."""

from __future__ import annotations

import re
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.paths import PROJECT
from tests import servers, traffic
from tests.grafana.dashboards import substituted, targets
from tests.prometheus.rules import load_rules, metrics, runbook_queries
from tests.servers import Postgres

OURS = re.compile(r"^(http|llm|db|app|active)_")
PART = re.compile("_(bucket|sum|count)$")


def families(text: str) -> set[str]:
    """Names as they are usually written: of a counter with `_total`."""
    names = set()
    for family in text_string_to_metric_families(text):
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return {name for name in names if OURS.match(name)}


def described() -> set[str]:
    names = set(re.findall(r"`([a-z_]+)`", (PROJECT / "docs" / "metrics.md").read_text()))
    return {name for name in names if OURS.match(name) and not name.endswith("_")}


def test_every_metric_is_described_and_every_described_one_exists(postgres: Postgres) -> None:
    store = {"ACTIVE_USERS_STORE": "redis://127.0.0.1:1", "ACTIVE_USERS_KEY": "nobody listens there"}
    environment = {**postgres.environment(postgres.create_database()), "APP_WORKERS": "2", **store}
    with servers.app(environment) as app:
        traffic.drive(app.url, seconds=3)
        with urllib.request.urlopen(f"{app.url}/metrics", timeout=30) as answer:
            exposed = families(answer.read().decode())
    assert described() == exposed


@pytest.mark.check
def test_rules_runbooks_and_panels_read_only_metrics_that_are_described() -> None:
    readers = [(f"{rule.file.name}: {rule.name}", rule.expr) for rule in load_rules()]
    readers += [(f"docs/runbooks/{name}", query) for name, query in runbook_queries()]
    readers += [(f"dashboard {target.dashboard}: {target.panel}", substituted(target.expr)) for target in targets()]
    known = described()
    unknown = {
        f"{reader} reads {name}"
        for reader, expr in readers
        for name in metrics(expr)
        if OURS.match(name) and ":" not in name and not {name, PART.sub("", name)} & known
    }
    assert not unknown, "\n".join(("docs/metrics.md does not describe them:", *sorted(unknown)))
