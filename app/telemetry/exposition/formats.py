# SPDX-License-Identifier: Apache-2.0
"""Which format a scrape gets: the preferred one of those that are supported, always with the matching content type.

    text/plain; version=0.0.4                      the default
    text/plain; version=1.0.0; escaping=...        names in quotes, where escaping=allow-utf-8
    application/openmetrics-text; version=1.0.0    with exemplars

https://prometheus.io/docs/instrumenting/content_negotiation/. A later version of OpenMetrics is a different format: a
scrape that accepts only that gets text.
"""

from collections.abc import Callable

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

_VERSIONS = {
    "application/openmetrics-text": {"", "1.0.0"},
    "text/plain": {"", "0.0.4", "1.0.0"},
    "text/*": {""},
    "*/*": {""},
}


def choose(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """prometheus_client's encoder for an Accept header, and its content type."""
    best, best_quality = "", 0.0
    for item in accept.split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        given = {
            name.strip().lower(): value.strip().strip('"') for name, _, value in (p.partition("=") for p in parameters)
        }
        try:
            quality = float(given.pop("q", 1))
        except ValueError:
            quality = 0.0
        if given.get("version", "") in _VERSIONS.get(media.lower(), ()) and quality > best_quality:
            best = ";".join((media.lower(), *(f"{name}={value}" for name, value in given.items())))
            best_quality = quality
    return choose_encoder(best)
