"""The exact record and the verdict on it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.record import ABANDONED, BUCKETS, FIRST_TOKEN, Record, Series, failure_kind
from loadtest.verdict import Threshold, judge, load_thresholds, table

requests = st.lists(
    st.tuples(
        st.sampled_from(["GET", "POST"]),
        st.sampled_from(["/items", "/chat"]),
        st.floats(0, 60),
        st.sampled_from([None, OSError(), ValueError()]),
    ),
    max_size=60,
)


@given(requests, st.integers(1, 5))
def test_workers_drained_at_any_time_add_up_to_the_whole(
    sent: list[tuple[str, str, float, Exception | None]], workers: int
) -> None:
    alone, master = Record(), Record()
    crew = [Record() for _ in range(workers)]
    for number, (method, name, seconds, exception) in enumerate(sent):
        alone.count(method, name, seconds, exception)
        crew[number % workers].count(method, name, seconds, exception)
        if number % 7 == 0:
            master.merge(crew[number % workers].drain())
    for worker in crew:
        master.merge(worker.drain())
    assert set(master.series) == set(alone.series)
    for key, series in alone.series.items():
        assert master.series[key].counts == series.counts
        assert master.series[key].failures == series.failures
        assert master.series[key].seconds == pytest.approx(series.seconds)
        assert master.series[key].failed_counts == series.failed_counts
        assert master.series[key].failed_seconds == pytest.approx(series.failed_seconds)
    assert sum(series.requests for series in master.series.values()) == len(sent)


def test_what_prometheus_reads_is_what_was_counted() -> None:
    record = Record()
    for seconds in (0.005, 0.0051, 0.3, 99.0):
        record.count("GET", "/items", seconds, None)
    record.count("POST", "/chat (streamed)", 2.0, OSError())
    record.count("DELETE", "/items", 0.004, None)
    record.count("DELETE", "/items", 4.0, OSError())
    record.count(FIRST_TOKEN, "/chat (streamed)", 0.2, None)
    record.count(ABANDONED, "/chat (streamed)", 0.9, None)
    registry = CollectorRegistry()
    registry.register(record)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }
    assert samples["locust_requests_total", "/items", "GET"] == 4
    assert samples["locust_requests_total", "/chat (streamed)", "POST"] == 1
    assert sum(value for key, value in samples.items() if key[0] == "locust_requests_total") == 7
    assert samples["locust_failures_total", "/chat (streamed)", "OSError", "POST"] == 1
    times = "locust_response_time_seconds"
    assert samples[f"{times}_bucket", "/items", "0.005", "GET", "success"] == 1
    assert samples[f"{times}_bucket", "/items", "0.01", "GET", "success"] == 2
    assert samples[f"{times}_bucket", "+Inf", "/items", "GET", "success"] == 4
    assert samples[f"{times}_count", "/items", "GET", "failure"] == 0
    for outcome, seconds in (("success", 0.004), ("failure", 4.0)):
        assert samples[f"{times}_count", "/items", "DELETE", outcome] == 1
        assert samples[f"{times}_sum", "/items", "DELETE", outcome] == pytest.approx(seconds)
    assert samples["locust_time_to_first_token_seconds_count", "/chat (streamed)"] == 1
    assert samples["locust_streams_abandoned_total", "/chat (streamed)"] == 1


def test_a_quantile_is_never_underestimated() -> None:
    series = Series()
    assert series.quantile(0.95) == 0.0
    record = Record()
    for seconds in [0.02] * 94 + [0.4] * 6:
        record.count("GET", "/", seconds, None)
    assert record.series["GET", "/"].quantile(0.5) == 0.025
    assert record.series["GET", "/"].quantile(0.95) == 0.5
    record.count("GET", "/slow", BUCKETS[-1] + 1, None)
    assert record.series["GET", "/slow"].quantile(0.95) == float("inf")


def test_failures_have_few_names() -> None:
    class BadStatus(Exception):  # noqa: N818  as Locust's client names it
        code = 503

    class CatchResponseError(Exception):
        pass

    assert failure_kind(BadStatus()) == "HTTP 503"
    assert failure_kind(CatchResponseError("the stream broke off")) == "check"
    assert failure_kind(ConnectionResetError(104, "secret")) == "ConnectionResetError"


def test_the_verdict_names_what_was_missed() -> None:
    record = Record()
    for _ in range(98):
        record.count("GET", "/items", 0.02, None)
    for _ in range(2):
        record.count("GET", "/items", 0.02, OSError())
    for _ in range(10):
        record.count("POST", "/chat", 6.0, None)
    thresholds = {"default": Threshold(0.01, 0.5), "/chat": Threshold(0.01, 5.0)}
    chat, items = judge(record.requests(), thresholds)
    assert chat.missed == ["p95 7.5 s > 5 s"]
    assert items.missed == ["errors 2.00% > 1.00%"]
    assert "errors 2.00% > 1.00%" in table([chat, items])


def test_the_shipped_thresholds_can_be_read_and_broken_ones_are_refused(tmp_path: Path) -> None:
    assert "default" in load_thresholds()
    broken = tmp_path / "thresholds.toml"
    for text in ("", "[default]\np95 = 1.0", "[default]\nerror_ratio = 0.1\np95 = 0.3", "[default"):
        broken.write_text(text)
        with pytest.raises(ValueError, match=r"thresholds\.toml"):
            load_thresholds(broken)
