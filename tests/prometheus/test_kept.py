"""What Prometheus drops of the service's series is asked for nowhere: metric_relabel_configs of the job `app`."""

from __future__ import annotations

import math
import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from prometheus.src.settings import SETTINGS
from tests import servers, traffic
from tests.grafana.dashboards import CONSTANTS, selectors, targets
from tests.prometheus.rules import alerts, recordings, runbook_queries
from tests.running import wait_until, web_server
from tests.servers import Postgres

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]
Matcher = tuple[str, str, str]  # label, promql_parser's name of the operator, value
PASSED_ON = {"endpoint", "le", "outcome", "type"}  # labels that a recorded series has as it got them
OF_THE_TARGET = {"__name__", "instance", "job", "service"}
STREAMING = servers.streaming_endpoint()
START = re.compile(r"^http_(failed_)?response_start_seconds")


@dataclass(frozen=True)
class Scraped:
    """What a service exposed and what Prometheus kept of it."""

    exposed: frozenset[Series]
    kept: frozenset[Series]

    @property
    def dropped(self) -> frozenset[Series]:
        return self.exposed - self.kept


@pytest.fixture(scope="module")
def scraped(postgres: Postgres) -> Scraped:
    """The real service's metrics after use, and as if each endpoint had failed, by the stack's own configuration."""
    environment = {**postgres.environment(postgres.create_database()), "APP_WORKERS": "2", "LLM_PROVIDER": "simulated"}
    with servers.app(environment) as app:
        traffic.drive(app.url, seconds=2)
        for path in ("/healthz", "/readyz", "/metrics", "/metrics"):
            urllib.request.urlopen(f"{app.url}{path}", timeout=30).close()
        with urllib.request.urlopen(f"{app.url}/metrics", timeout=30) as answer:
            text = answer.read().decode().replace('endpoint="/chat"', f'endpoint="{STREAMING}"')
    text += "".join(
        re.sub("^http_", "http_failed_", line)
        for line in text.splitlines(keepends=True)
        if re.match("http_(request_duration|response_start)_seconds_", line)
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_request(self, *_: object) -> None:
            pass

    with (
        web_server(Handler) as url,
        servers.prometheus_of_the_stack(app=int(url.rpartition(":")[2])) as running,
    ):
        wait_until(lambda: running.query('up{job="app"} == 1'))
        found = running.api("series", **{"match[]": '{job="app", __name__=~"http_.*|llm_.*|db_.*|app_.*|active_.*"}'})
    exposed = frozenset(
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if re.match("http_|llm_|db_|app_|active_", sample.name)
    )
    kept = frozenset(
        (one["__name__"], tuple(sorted(item for item in one.items() if item[0] not in OF_THE_TARGET))) for one in found
    )
    return Scraped(exposed, kept)


@cache
def asked() -> dict[str, set[frozenset[Matcher]]]:
    """Metric -> the matchers of each of its selectors: in dashboards, alerts, runbooks, and records that these read."""
    found: dict[str, set[frozenset[Matcher]]] = defaultdict(set)
    for expr in [target.expr for target in targets()]:
        for name, value in CONSTANTS.items():
            expr = expr.replace(f"${name}", value)
        _add(found, expr)
    for expr in [rule.expr for rule in alerts()] + [query for _, query in runbook_queries()]:
        _add(found, expr)
    reads = [(rule.name, selectors(rule.expr)) for rule in recordings()]
    size = -1
    while size != (size := sum(map(len, found.values()))):  # records read records
        for name, inner in reads:
            for consumer in list(found.get(name, ())):
                passed = frozenset(matcher for matcher in consumer if matcher[0] in PASSED_ON)
                for selector in inner:
                    found[selector.metric].add(selector.matchers | passed)
    return found


def _add(found: dict[str, set[frozenset[Matcher]]], expr: str) -> None:
    """Whatever is chosen in a dashboard's variable may be asked for."""
    for selector in selectors(expr):
        fixed = frozenset(matcher for matcher in selector.matchers if "$" not in matcher[2])
        found[selector.metric].add(fixed)


def matches(labels: dict[str, str], matchers: Iterable[Matcher]) -> bool:
    def one(name: str, operator: str, value: str) -> bool:
        if name in OF_THE_TARGET:
            return True
        there = labels.get(name, "")
        equal = re.fullmatch(value, there) is not None if "Re" in operator else value == there
        return equal != ("Not" in operator)

    return all(one(*matcher) for matcher in matchers)


def test_nothing_that_is_dropped_is_asked_for(scraped: Scraped) -> None:
    """But for the start of a response, for which the duration of the request stands in."""
    lost = []
    for name, labels in scraped.dropped:
        stands_in = START.sub(lambda m: f"http_{m[1] or ''}request_duration_seconds", name)
        if stands_in != name and (stands_in, labels) in scraped.kept:
            continue
        lost += [(name, labels, sorted(one)) for one in asked()[name] if matches(dict(labels), one)]
    assert lost == []


def test_bounds_are_close_enough_for_percentiles(scraped: Scraped) -> None:
    """At most five times apart; database times, up to 25 ms, and responses not even three times."""

    def apart(pattern: str, most: float) -> float:
        found = defaultdict(set)
        for name, labels in scraped.kept:
            if re.fullmatch(pattern, name) and dict(labels)["le"] != "+Inf" and float(dict(labels)["le"]) <= most:
                found[name].add(float(dict(labels)["le"]))
        return max(b / a for bounds in found.values() for a, b in pairwise(sorted(bounds)))

    assert apart("(http|db|llm)_.+_seconds_bucket", math.inf) <= 5
    assert apart("db_query_duration_seconds_bucket", 0.025) <= 2.5
    assert apart("http_.+_seconds_bucket", 10) <= 2.5


def test_the_proof_sees_what_is_asked_for(scraped: Scraped) -> None:
    """Each kind of question finds what it asks for, through recorded series too; a drop too many would be seen."""
    for name, labels in (
        ("http_request_duration_seconds_bucket", {"endpoint": "/items", "le": "0.01"}),
        ("http_failed_request_duration_seconds_bucket", {"endpoint": "/items", "le": "0.01"}),
        ("http_response_size_bytes_sum", {"endpoint": "/items"}),
        ("http_response_start_seconds_bucket", {"endpoint": STREAMING, "le": SETTINGS.start_le}),
        ("llm_request_duration_seconds_bucket", {"outcome": "success", "le": "2.56"}),
        ("llm_request_duration_seconds_sum", {"outcome": "incomplete"}),
        ("llm_request_tokens_bucket", {"type": "output", "le": "256.0"}),
        ("llm_request_tokens_bucket", {"type": "input", "le": "+Inf"}),
        ("db_query_duration_seconds_bucket", {"query_name": "item_list", "le": "0.01"}),
    ):
        assert any(matches(labels, one) for one in asked()[name]), (name, labels)
        assert any(name == kept and labels.items() <= dict(own).items() for kept, own in scraped.kept), (name, labels)


def test_streams_are_judged_by_the_start_of_their_response(scraped: Scraped) -> None:
    starts = {
        (name, labels)
        for name, labels in scraped.exposed
        if START.match(name) and re.fullmatch(SETTINGS.streaming, dict(labels)["endpoint"])
        if not name.endswith("_sum")
    }
    assert starts
    assert starts <= scraped.kept


def test_many_series_are_dropped_and_no_metric_wholly(scraped: Scraped) -> None:
    assert len(scraped.kept) < 0.6 * len(scraped.exposed)

    def families(series: Iterable[Series]) -> set[str]:
        return {re.sub("_(bucket|sum|count)$", "", name) for name, _ in series}

    assert families(scraped.kept) == families(scraped.exposed)


def test_what_names_a_bound_names_one_that_is_kept(scraped: Scraped) -> None:
    """Whatever slo.toml says: `make generate` refuses another one."""
    named = {
        (name, value)
        for name, all_matchers in asked().items()
        if name.endswith("_bucket")
        for matchers in all_matchers
        for label, operator, value in matchers
        if label == "le" and operator == "MatchOp.Equal" and value != "+Inf"
    }
    assert named >= {
        ("http_request_duration_seconds_bucket", SETTINGS.latency_le),
        ("http_response_start_seconds_bucket", SETTINGS.start_le),
    }
    there = {(name, float(dict(labels)["le"])) for name, labels in scraped.kept if name.endswith("_bucket")}
    assert [(name, le) for name, le in named if (name, float(le)) not in there] == []
