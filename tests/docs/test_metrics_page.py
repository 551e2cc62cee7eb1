"""docs/metrics.md says what the running service exposes: no more and no less."""

from __future__ import annotations

import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from ops.paths import PROJECT
from tests import servers, traffic
from tests.servers import Postgres

OURS = re.compile(r"^(http|llm|db|app|active)_")


def families(text: str) -> set[str]:
    """Names as they are usually written: of a counter with `_total`."""
    names = set()
    for family in text_string_to_metric_families(text):
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return {name for name in names if OURS.match(name)}


def test_every_metric_is_described_and_every_described_one_exists(postgres: Postgres) -> None:
    described = set(re.findall(r"`([a-z_]+)`", (PROJECT / "docs" / "metrics.md").read_text()))
    described = {name for name in described if OURS.match(name) and not name.endswith("_")}
    store = {"ACTIVE_USERS_STORE": "redis://127.0.0.1:1", "ACTIVE_USERS_KEY": "nobody listens there"}
    environment = {**postgres.environment(postgres.create_database()), "APP_WORKERS": "2", **store}
    with servers.app(environment) as app:
        traffic.drive(app.url, seconds=3)
        with urllib.request.urlopen(f"{app.url}/metrics", timeout=30) as answer:
            exposed = families(answer.read().decode())
    assert described == exposed
