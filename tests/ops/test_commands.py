"""What the commands check by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.commands import lacking_secrets
from tests.alertmanager.config import CONFIG as AS_IT_COMES
from tests.alertmanager.config import NULL

FILES = {
    "slack": "slack_url", "email": "smtp_password", "pagerduty": "pagerduty_key", "teams": "teams_url",
    "discord": "discord_url", "telegram": "telegram_token", "webhook": "webhook_url", "heartbeat": "heartbeat_url",
}  # fmt: skip
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


def test_two_ways_at_once_need_the_secrets_of_both(tmp_path: Path) -> None:
    """One receiver with the parts of two, as docs/notifications.md has it."""
    config = CONFIG.replace(f"receiver: {NULL}", "receiver: both")
    for part, name in (("slack_configs:", "slack"), ("pagerduty_configs:", "pagerduty")):
        config = config.replace(f"    {part}\n", f"    {part} &{name}\n", 1)
    config += "  - {name: both, slack_configs: *slack, pagerduty_configs: *pagerduty}\n"
    assert lacking_secrets(config, tmp_path) == [str(tmp_path / "slack_url"), str(tmp_path / "pagerduty_key")]


def test_a_mail_relay_without_login_needs_no_secret(tmp_path: Path) -> None:
    config = re.sub(r"(?m)^  smtp_auth_.*\n", "", CONFIG.replace(f"receiver: {NULL}", "receiver: email"))
    assert lacking_secrets(config, tmp_path) == []
