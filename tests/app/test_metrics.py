"""The service's own business metrics."""

from __future__ import annotations

import httpx2
from prometheus_client.parser import text_string_to_metric_families


def value(client: httpx2.Client, name: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    [sample] = [sample for family in families for sample in family.samples if sample.name == name]
    return sample.value


def test_items_are_counted_when_they_are_stored(user: httpx2.Client) -> None:
    before = value(user, "app_items_created_total")
    assert user.post("/items", json={"title": "Lamp"}).status_code == 201
    assert user.post("/items", json={"title": ""}).status_code == 422
    assert user.get("/items").status_code == 200
    assert value(user, "app_items_created_total") == before + 1
