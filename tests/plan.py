"""In which units and in which order `make test` hands the tests to its workers (more on it: CONTRIBUTING.md).

A module is a unit, as its tests share servers and some go on where the one before has stopped. The modules in ALONE are
those whose tests start by themselves whatever they need: each test is a unit. The longest units come first, so that
nothing long is waited for in the end. A new module needs no entry; one that takes long should get one.
"""

from __future__ import annotations

ALONE = {
    "tests/app/test_start.py",
    "tests/app/test_chat_outage.py",
    "tests/alertmanager/test_delivery.py",
    "tests/docs/test_adopt.py",
    "tests/loadtest/test_exactness.py",
    "tests/loadtest/test_failing_users.py",
    "tests/telemetry/storage/test_workers.py",
}

SECONDS = {  # about, of modules that take more than ten seconds when they run alone; of the longest test if ALONE
    "tests/ops/test_processes.py": 150,
    "tests/docs/test_commands.py": 100,
    "tests/grafana/test_dashboards_live.py": 100,
    "tests/prometheus/test_rules_live.py": 100,
    "tests/prometheus/test_settings.py": 60,
    "tests/docs/test_adopt.py": 60,
    "tests/app/test_abuse.py": 60,
    "tests/app/test_faults.py": 60,
    "tests/prometheus/test_core_metrics.py": 50,
    "tests/alertmanager/test_config.py": 50,
    "tests/docs/test_contributing.py": 40,
    "tests/ops/test_upgrade.py": 40,
    "tests/alertmanager/test_messages.py": 25,
    "tests/loadtest/test_exactness.py": 40,
    "tests/telemetry/database/test_pool.py": 30,
    "tests/loadtest/test_failing_users.py": 30,
    "tests/prometheus/test_rules.py": 30,
    "tests/telemetry/test_package.py": 25,
    "tests/app/test_start.py": 20,
    "tests/app/test_chat_outage.py": 20,
    "tests/telemetry/storage/test_workers.py": 15,
    "tests/app/test_fuzz.py": 15,
}


def module(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def unit(nodeid: str) -> str:
    """What must run in one worker, in the order of the file."""
    return nodeid if module(nodeid) in ALONE else module(nodeid)


def seconds(nodeid: str) -> float:
    return SECONDS.get(module(nodeid), 0)
