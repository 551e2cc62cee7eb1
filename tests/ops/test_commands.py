"""What the commands check by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.commands import lacking_secrets
from tests.alertmanager.config import CONFIG as AS_IT_COMES
from tests.alertmanager.config import NULL

FILES = {"slack": "slack_url", "pagerduty": "pagerduty_key", "webhook": "webhook_url", "heartbeat": "heartbeat_url"}
CONFIG = re.sub(r"#.*", "", AS_IT_COMES)


def test_receivers_that_no_route_names_need_no_secret(tmp_path: Path) -> None:
    assert lacking_secrets(CONFIG, tmp_path) == []


@pytest.mark.parametrize("receiver", FILES)
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_receiver_in_use_needs_its_secret(tmp_path: Path, receiver: str, quote: str) -> None:
    config = CONFIG.replace(f"receiver: {NULL}", f"receiver: {quote}{receiver}{quote}")
    assert lacking_secrets(config, tmp_path) == [str(tmp_path / FILES[receiver])]
    for nothing in ("", " \n"):
        (tmp_path / FILES[receiver]).write_text(nothing)
        assert lacking_secrets(config, tmp_path) == [str(tmp_path / FILES[receiver])]
    (tmp_path / FILES[receiver]).write_text("secret")
    assert lacking_secrets(config, tmp_path) == []
