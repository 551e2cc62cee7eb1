"""What a query of a dashboard answers, and why it may answer nothing."""

from __future__ import annotations

from tests.grafana.dashboards import Target, substituted
from tests.servers import Prometheus

# Panels that show nothing in a healthy stack, and what fills them. Everything else must have data under traffic.
NEEDS_MORE = {
    "Exceptions": "an exception that no handler catches",
    **dict.fromkeys(
        ("WebSocket handshakes", "WebSockets open", "WebSockets closed", "WebSocket duration"),
        "a WebSocket, which the reference service has none of",
    ),
    "Network saturation": "a network card with a known speed",
    "Net util.": "a network card with a known speed",
    "Disks full, forecast": "an hour of history",
}
# Queries that have nothing to show before some time has gone by.
LATER = {
    ":5m]": "the first full five minutes",
    "deriv(": "a file system that fills up",
    "offset $before": "a load test 15 minutes earlier",
    'outcome="failure"': "a request of a load test that fails",
    "@ end() < 0": "an exemplar, which is no series",
}
# Series that nothing exposes (or no query shows) before something happens, or that another version exposes.
APPEARS_LATER = {
    **{
        f"http_failed_{what}_{part}": "the first request that fails"
        for what in ("request_duration_seconds", "response_start_seconds")
        for part in ("bucket", "sum", "count")
    },
    "http_exceptions_total": "the first unhandled exception",
    "llm_unpriced_requests_total": "the first call of a model without a price",
    "locust_failures_total": "the first failure of a load test",
    "alertmanager_notifications_failed_total": "the first message that cannot be delivered",
    "prometheus_remote_storage_samples_dropped_total": "the first sample that is dropped",
    "ALERTS": "the first alert",
    "ALERTS_FOR_STATE": "the first alert",
    **dict.fromkeys(
        (
            "websocket_connections_total",
            "websocket_connections_open",
            "websocket_closed_total",
            "websocket_connection_duration_seconds_sum",
            "websocket_connection_duration_seconds_count",
        ),
        "the first WebSocket",
    ),
    "pg_stat_user_tables_last_vacuum": "the first vacuum",
    "pg_stat_user_tables_last_analyze": "the first analyze",
    "node_memory_SwapTotal_bytes": "a host with swap space",
    "pg_replication_slot_slot_is_active": "the first replication slot",
    "pg_replication_slot_slot_current_wal_lsn": "the first replication slot",
    "pg_replication_slot_slot_confirmed_flush_lsn": "the first replication slot",
    "pg_stat_statements_query_id": "postgres_exporter 0.18 with the text of statements",
    "prometheus_notifications_sent_total": "an Alertmanager that Prometheus has found",
    "prometheus_notifications_errors_total": "an Alertmanager that Prometheus has found",
    "job_slo:error_budget_burn:rate1d": "evaluated every minute",
    "job_slo:error_budget_burn:rate3d": "evaluated every minute",
}


def answer(prometheus: Prometheus, target: Target) -> dict[tuple[tuple[str, str], ...], float]:
    """What a query answers at its panel's end. A graph that names nothing as its range has something, such as a query
    that waited seconds ago, shows that."""
    expr = substituted(target.expr, rate_interval="10s", span="60s")
    return prometheus.query(expr) or (prometheus.drawn(expr, 60) if "@ end()" in expr else {})
