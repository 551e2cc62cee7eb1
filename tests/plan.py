"""In which units and in which order `make test` hands the tests to its workers (more on it: CONTRIBUTING.md).

A module is a unit, as its tests share servers and some go on where the one before has stopped. The modules in ALONE are
those whose tests start by themselves whatever they need: each test is a unit. The longest units come first, so that
nothing long is waited for in the end. A new module needs no entry; one that takes long should get one.
"""

from __future__ import annotations

ALONE = {
    "tests/app/test_migrations.py",
    "tests/app/test_start.py",
    "tests/app/test_chat_outage.py",
    "tests/alertmanager/test_delivery.py",
    "tests/docs/test_adopt.py",
    "tests/docs/test_adopt_code.py",
    "tests/docs/test_adopt_copy.py",
    "tests/loadtest/test_exactness.py",
    "tests/loadtest/test_failing_users.py",
    "tests/telemetry/storage/test_workers.py",
}

SECONDS = {  # about, of modules that take more than ten seconds when they run alone; of the longest test if ALONE
    "tests/grafana/outage/test_postgres.py": 260,
    "tests/grafana/outage/test_provider.py": 220,
    "tests/ops/test_longterm.py": 140,
    "tests/grafana/outage/test_hosts.py": 130,
    "tests/grafana/outage/test_postgres_down.py": 130,
    "tests/grafana/outage/test_no_answer.py": 120,
    "tests/grafana/outage/test_service.py": 110,
    "tests/docs/test_commands.py": 100,
    "tests/grafana/test_dashboards_live.py": 100,
    "tests/prometheus/test_rules_live.py": 100,
    "tests/prometheus/test_remote_write.py": 90,
    "tests/ops/test_processes.py": 80,
    "tests/ops/test_kubernetes.py": 75,
    "tests/ops/test_backup.py": 70,
    "tests/alertmanager/test_config.py": 60,
    "tests/app/test_faults.py": 60,
    "tests/docs/test_adopt.py": 60,
    "tests/prometheus/test_settings.py": 60,
    "tests/telemetry/storage/test_celery.py": 60,
    "tests/prometheus/test_core_metrics.py": 50,
    "tests/telemetry/storage/test_faults.py": 50,
    "tests/app/abuse/test_clients.py": 45,
    "tests/telemetry/database/test_sqlalchemy_2_0.py": 45,
    "tests/docs/test_contributing.py": 40,
    "tests/loadtest/test_exactness.py": 40,
    "tests/ops/test_upgrade.py": 40,
    "tests/telemetry/http/test_http.py": 40,
    "tests/app/test_fuzz.py": 30,
    "tests/app/test_limits.py": 30,
    "tests/loadtest/test_failing_users.py": 30,
    "tests/prometheus/test_rules.py": 30,
    "tests/alertmanager/test_messages.py": 25,
    "tests/app/llm/test_wire.py": 25,
    "tests/telemetry/test_package.py": 25,
    "tests/app/llm/test_many.py": 20,
    "tests/app/test_chat_failures.py": 20,
    "tests/app/test_chat_outage.py": 20,
    "tests/app/test_cost.py": 20,
    "tests/app/test_start.py": 20,
    "tests/telemetry/http/test_routes.py": 20,
    "tests/app/abuse/test_input.py": 15,
    "tests/app/test_active_users.py": 15,
    "tests/app/test_chat.py": 15,
    "tests/loadtest/test_command.py": 15,
    "tests/loadtest/test_users.py": 15,
    "tests/telemetry/database/test_drivers.py": 15,
    "tests/telemetry/database/test_workers.py": 15,
    "tests/telemetry/exposition/test_validity.py": 15,
    "tests/telemetry/http/test_websockets.py": 15,
    "tests/telemetry/llm/test_shapes.py": 15,
    "tests/telemetry/storage/test_workers.py": 15,
    "tests/docs/test_metrics_page.py": 12,
    "tests/grafana/test_answers.py": 12,
    "tests/ops/test_compose.py": 12,
    "tests/ops/test_nothing_runs.py": 12,
    "tests/telemetry/llm/test_workers.py": 12,
}


def module(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def unit(nodeid: str) -> str:
    """What must run in one worker, in the order of the file."""
    return nodeid if module(nodeid) in ALONE else module(nodeid)


def seconds(nodeid: str) -> float:
    return SECONDS.get(module(nodeid), 0)
