"""The metrics of a real postgres_exporter."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.running import Running


def scrape(exporter: Running, timeout: float = 60.0) -> dict[tuple[str, str], list[tuple[dict[str, str], float]]]:
    """(metric without `_total`, which the parser adds to every counter, and database) -> its samples."""
    with urllib.request.urlopen(f"{exporter.url}/metrics", timeout=timeout) as answer:
        found: dict[tuple[str, str], list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                name = sample.name.removesuffix("_total")
                found.setdefault((name, sample.labels.get("datname", "")), []).append((sample.labels, sample.value))
        return found
