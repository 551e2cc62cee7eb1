#!/usr/bin/env bash
# prometheus_client 0.26 and the Accept header of a scrape.
#
# Guessed: the format with the highest quality that it can write, under its own name; a version that it can't write falls back to
# one that it can. Seen: a header that names OpenMetrics from 1.0.0 on gets OpenMetrics 1.0.0's text under whatever version was
# asked for, 2.0.0 included, whose text would be another one. Qualities are not read: `q=0`, which means "not this one", gets it,
# and so does a header that prefers text/plain. A parser that trusts the Content-Type parses the wrong format.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check prometheus_client==0.26.0
"$folder/venv/bin/python" - << 'PYTHON'
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

registry = CollectorRegistry()
Counter("jobs", "Jobs.", registry=registry).inc()


def scraped(accept):
    encode, content_type = choose_encoder(accept)
    name, version = content_type.split("; ")[:2]
    return f"{name} {version}", encode(registry)


asked, text = scraped("application/openmetrics-text; version=1.0.0")
newer, newer_text = scraped("application/openmetrics-text; version=2.0.0")
refused, _ = scraped("application/openmetrics-text; version=1.0.0; q=0, text/plain; version=0.0.4")
disliked, _ = scraped("application/openmetrics-text; version=1.0.0; q=0.1, text/plain; version=0.0.4; q=0.9")
print("1.0.0 asked:", asked)
print("2.0.0 asked:", newer, "with the same text:", newer_text == text)
print("1.0.0 refused by q=0:", refused)
print("text/plain preferred:", disliked)
assert newer == "application/openmetrics-text version=2.0.0" and newer_text == text, "the behaviour has changed"
assert refused == disliked == asked, "the behaviour has changed"
PYTHON
