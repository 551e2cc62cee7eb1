"""alertmanager/alertmanager.yml for the tests: unchanged, with receivers switched on, and as amtool reads it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from ops.paths import PROJECT
from ops.programs import find

FOLDER = PROJECT / "alertmanager"
NULL = '"null"'  # the null receiver, as YAML writes its name
RECEIVERS = ("slack", "email", "pagerduty", "teams", "discord", "telegram", "webhook", "heartbeat")
Json = dict[str, Any]


def as_it_comes(config: str) -> str:
    """The configuration before anything that docs/notifications.md describes was switched on.

    The tests hold for it, whichever receivers the user of this checkout has chosen.
    """
    before, routes, after = re.split(r"(^route:\n.*?)(?=^inhibit_rules:)", config, flags=re.MULTILINE | re.DOTALL)
    routes = re.sub(r'(- matchers: \[area=~"host\|monitoring"\]\n) *receiver: .*\n', r"\1", routes)
    routes = re.sub(r'(?<=receiver: )"?[\w-]+"?', NULL, routes)
    after = re.sub(r"(_configs:) &\w+$", r"\1", after, flags=re.MULTILINE)
    after = re.sub(r"^ *- \{name: [\w-]+(, \w+_configs: \*\w+)+\}\n?", "", after, flags=re.MULTILINE)
    return before + routes + after


CONFIG = as_it_comes((FOLDER / "alertmanager.yml").read_text())


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(find("amtool")["amtool"]), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def receiver_of(config: Path, **labels: str) -> str:
    """The receiver that amtool finds for an alert with these labels."""
    matchers = [f"{name}={value}" for name, value in labels.items()]
    run = amtool("config", "routes", "test", f"--config.file={config}", *matchers)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def switched_on(matcher: str, receiver: str) -> str:
    """The configuration with one `"null"` replaced, as its comments ask: that of the route with this matcher."""
    before, found, after = CONFIG.partition(f"matchers: [{matcher}]")
    assert found, f"no route matches {matcher}"
    head, null, tail = after.partition(f"receiver: {NULL}")
    assert null
    return before + found + head + f"receiver: {receiver}" + tail


def sent_elsewhere(severity: str, receiver: str) -> str:
    """The configuration with a receiver of their own for machines and monitoring, as its comments say."""
    before, found, after = CONFIG.partition(f'matchers: [severity="{severity}"]')
    head, child, tail = after.partition('        - matchers: [area=~"host|monitoring"]\n')
    assert found
    assert child
    return before + found + head + child + f"          receiver: {receiver}\n" + tail


def matches(matchers: list[str], labels: dict[str, str]) -> bool:
    """Whether Alertmanager's matchers, written in UTF-8 syntax with one operator each, accept the labels."""
    for matcher in matchers:
        for part in re.findall(r'\w+(?:=~|!~|!=|=)"[^"]*"', matcher):
            name, operator, value = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', part).groups()  # type: ignore[union-attr]
            own = labels.get(name, "")
            equal = re.fullmatch(value, own) is not None if "~" in operator else value == own
            if equal != (operator in ("=", "=~")):
                return False
    return True
