"""What the tiles say in real outages: real servers of the stack's own, which each module starts for itself.

Scrapes and rules come every 3 seconds instead of every 15, windows stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.grafana.outage import stack as stacks
from tests.grafana.outage.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    key = tmp_path_factory.mktemp("llm") / "key"
    key.write_text("none")
    with stacks.running(key) as running:
        yield running
