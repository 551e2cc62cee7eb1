"""What the commands check by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.commands import lacking_secrets
from ops.paths import PROJECT

FILES = {"slack": "slack_url", "pagerduty": "pagerduty_key", "webhook": "webhook_url", "heartbeat": "heartbeat_url"}
CONFIG = re.sub(r"#.*", "", (PROJECT / "alertmanager" / "alertmanager.yml").read_text())


def test_receivers_that_no_route_names_need_no_secret(tmp_path: Path) -> None:
    nowhere = re.sub(r"receiver: \w+", "receiver: nowhere", CONFIG)
    assert lacking_secrets(nowhere, tmp_path) == []


@pytest.mark.parametrize("receiver", FILES)
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_receiver_in_use_needs_its_secret(tmp_path: Path, receiver: str, quote: str) -> None:
    config = re.sub(r"receiver: \w+", f"receiver: {quote}{receiver}{quote}", CONFIG)
    assert lacking_secrets(config, tmp_path) == [str(tmp_path / FILES[receiver])]
    (tmp_path / FILES[receiver]).write_text("secret")
    assert lacking_secrets(config, tmp_path) == []
