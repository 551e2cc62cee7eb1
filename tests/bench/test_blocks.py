"""The data that the benchmark of the dashboards is asked about are what the rules would have recorded."""

from __future__ import annotations

from bench import blocks
from prometheus.src import recorded

# Records of what no instance in the data has met. Those of exporters, which have no data, are named `exported_total`.
ABSENT = {
    "job_model:llm_unpriced_requests:rate5m",
    "job_model_detail:llm_token_details:rate5m",
    "job_model_reason:llm_retries:rate5m",
    "job_pool:db_pool_checkout_timeouts:rate5m",
    "job_pool_kind:db_pool_invalidations:rate5m",
}


def test_every_record_has_data_of_all_instances_together() -> None:
    raw = [series for number in range(3) for series in blocks.instance(number)]
    made = list(blocks.records(raw))
    names = {record.name for record in (*recorded.DASHBOARDS, *recorded.COUNTERS)}
    assert {name for name in names if not name.endswith(":exported_total")} - {one.name for one in made} == ABSENT
    assert {one.name for one in made if "instance" in one.labels} == {"instance:http_requests:rate5m"}
    texts = [one.text() for one in made]
    assert len(texts) == len(set(texts))
