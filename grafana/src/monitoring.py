"""Monitoring: does the monitoring itself work?"""

from __future__ import annotations

from . import slo
from .common import TARGET, TARGET_JOB, dashboard, only
from .common_panels import ALL_ALERTS_TABLE, firing_alerts, targets_up
from .layout import halves, quarters, sixths, thirds
from .looks import PER_MINUTE, UP_OR_DOWN, Steps, coloured, fixed, override_matching, values
from .model import Query, Row
from .monitoring_remote_write import REMOTE_WRITE
from .panels import stat, state_timeline, timeseries
from .promql import PROMETHEUS, SELF_SCRAPE, WATCHDOG, occurring, or_zero

VARIABLES = (TARGET_JOB, TARGET)
ONE_JOB = only("Only ${__field.labels.job}", "Monitoring", VARIABLES, TARGET_JOB, "__field.labels.job")
ONE_TARGET = only("Only ${__field.labels.instance}", "Monitoring", VARIABLES, TARGET, "__field.labels.instance")
OK = values({"0": ("failed", "red"), "1": ("ok", "green")})

# The Watchdog as received by Alertmanager; each of two Alertmanagers has it.
ARRIVED = 'sum by (instance) (alertmanager_alerts{state=~"active|suppressed"})'
STRIP = (
    targets_up(),
    stat(
        "Watchdog",
        "Whether alerts reach Alertmanager: it must have the Watchdog alert, which always fires.",
        f'clamp_max(max({ARRIVED}), 1) or 0 * max(up{{job="alertmanager"}})',
        unit="none",
        mappings=(values({"0": ("lost", "red"), "1": ("arrives", "green")}),),
        steps=Steps(1, 0),
        no_value="none known",
    ),
    *firing_alerts(others=""),
    stat(
        "Rule errors",
        "Evaluations of rules that failed in the last hour. An alert that cannot be evaluated cannot fire.",
        "sum(increase(prometheus_rule_evaluation_failures_total[1h]))",
        unit="none",
        decimals=0,
        steps=Steps(1, 10),
        source=SELF_SCRAPE,
    ),
    stat(
        "Unsent",
        "Alerts that Prometheus could not send to Alertmanager, and notifications that Alertmanager could not "
        "deliver, in the last hour.",
        "(sum(increase(prometheus_notifications_dropped_total[1h])) or vector(0))"
        " + (sum(increase(alertmanager_notifications_failed_total[1h])) or vector(0))",
        unit="none",
        decimals=0,
        steps=Steps(1, 5),
        source=SELF_SCRAPE,
    ),
    stat(
        "Config",
        "Whether the latest configuration of Prometheus and of Alertmanager was accepted.",
        "min(prometheus_config_last_reload_successful or alertmanager_config_last_reload_successful"
        ' or (up{job=~"prometheus|alertmanager"} == 0) + 0.5)',
        unit="none",
        mappings=(OK, values({"0.5": ("no answer", "orange")})),
        steps=Steps(1, 0),
        no_value="unknown",
    ),
    stat(
        "Scrape",
        "Time of the slowest scrape. Beyond the scrape timeout (10 s) the target counts as down.",
        "max(scrape_duration_seconds)",
        unit="s",
        steps=slo.red_at("scrape_seconds", 0.4),
    ),
    stat(
        "Rules max",
        "Evaluation time of the slowest rule group, as a share of its interval. At 100 % evaluations are missed.",
        "max(prometheus_rule_group_last_duration_seconds / prometheus_rule_group_interval_seconds)",
        unit="percentunit",
        decimals=0,
        steps=Steps(0.5, 0.8),
    ),
    stat(
        "Query p90",
        "90 of 100 queries of rules, dashboards and users are answered within this time, of the slowest phase.",
        'max(prometheus_engine_query_duration_seconds{quantile="0.9"}) >= 0',
        unit="s",
        steps=Steps(1, 5),
        no_value="idle",
    ),
    stat(
        "Series",
        "Time series in Prometheus' memory. A jump usually means a label with unbounded values.",
        "sum(prometheus_tsdb_head_series)",
        unit="short",
        steps=Steps(100_000, 500_000),
    ),
    stat(
        "Disk space",
        "Disk space used by Prometheus: blocks, write-ahead log and head chunks.",
        "sum(prometheus_tsdb_storage_blocks_bytes) + sum(prometheus_tsdb_wal_storage_size_bytes)"
        " + sum(prometheus_tsdb_head_chunks_storage_size_bytes)",
        unit="bytes",
        decimals=1,
    ),
)

TARGETS = (
    state_timeline(
        "Targets",
        "Every target that Prometheus scrapes: up or down. A load test is shown while it runs.",
        Query(
            'max by (job, instance) (up{@target, job!="locust"} or up{@target, job="locust"} == 1)',
            "{{job}} {{instance}}",
        ),
        unit="none",
        mappings=(UP_OR_DOWN,),
        links=(ONE_TARGET,),
    ),
    timeseries(
        "Scrape duration",
        "Time that a scrape takes, of the slowest target of each job.",
        Query("max by (job) (scrape_duration_seconds{@target})", "{{job}}"),
        unit="s",
        log=True,
        links=(ONE_JOB,),
    ),
    timeseries(
        "Samples per scrape",
        "Samples that a target returns, the most of each job. A steady increase means a label with unbounded values.",
        Query(
            "max by (job) (scrape_samples_post_metric_relabeling{@target})",
            "{{job}}",
        ),
        unit="short",
        links=(ONE_JOB,),
    ),
)

ALERTING = (
    ALL_ALERTS_TABLE,
    timeseries(
        "Alerts by state",
        "Alerts that are pending or firing. Watchdog, which always fires, is left out.",
        tuple(
            Query(or_zero(f'count(ALERTS{{alertstate="{state}", severity!="none"}})', WATCHDOG), state)
            for state in ("firing", "pending")
        ),
        unit="none",
        stacked=True,
        overrides=coloured({"firing": "red", "pending": "yellow"}),
        no_value="No rules were evaluated in this range",
    ),
)

SENT = "alertmanager_notifications_total"
FAILED = "alertmanager_notifications_failed_total"
NOTIFICATIONS = (
    timeseries(
        "Sent to Alertmanager, 5 min",
        "Alerts that Prometheus sent to Alertmanager in the last 5 minutes (each firing one is repeated about "
        "once a minute), and those it could not send.",
        tuple(
            Query(or_zero(f"sum(increase(prometheus_notifications_{kind}_total[5m]))", PROMETHEUS), name)
            for kind, name in (("sent", "sent"), ("errors", "failed"), ("dropped", "dropped"))
        ),
        unit="none",
        overrides=coloured({"sent": "green", "failed": "orange", "dropped": "red"}),
    ),
    timeseries(
        "Alerts in Alertmanager",
        "Alerts that Alertmanager holds: active, or suppressed by a silence or by another alert. Watchdog, which "
        "always fires, is one of them.",
        Query("sum by (state) (alertmanager_alerts)", "{{state}}"),
        unit="none",
        stacked=True,
        overrides=coloured({"active": "blue", "suppressed": "purple", "unprocessed": "text"}),
    ),
    timeseries(
        "Notifications, 15 min",
        "Notifications in the last 15 minutes by integration, and those that Alertmanager could not deliver. None "
        "are sent before a receiver is switched on.",
        (
            Query(
                occurring(
                    f"sum by (integration) (increase({SENT}[15m]))",
                    f"increase({SENT}[$__range] @ end()) > 0",
                    "integration",
                    source=PROMETHEUS,
                ),
                "{{integration}}",
            ),
            Query(
                f"sum by (integration, reason) (increase({FAILED}[15m])) > 0",
                "{{integration}} failed: {{reason}}",
            ),
        ),
        unit="none",
        overrides=(override_matching(".* failed: .*", color=fixed("red")),),
    ),
)

RULES = (
    timeseries(
        "Rule evaluation",
        "Duration of the last evaluation of all rules of a file. It must stay far below the interval, 15 seconds.",
        Query(
            'sum by (file) (label_replace(prometheus_rule_group_last_duration_seconds, "file", "$1", "rule_group", '
            '".*/(.*)[.]ya?ml;.*"))',
            "{{file}}",
        ),
        unit="s",
    ),
    timeseries(
        "Evaluations failed or missed",
        "Rules that could not be evaluated, and evaluations that were skipped because the previous one took too long.",
        (
            Query("60 * sum(rate(prometheus_rule_evaluation_failures_total[@rate]))", "failed"),
            Query("60 * sum(rate(prometheus_rule_group_iterations_missed_total[@rate]))", "missed"),
        ),
        unit=PER_MINUTE,
        overrides=coloured({"failed": "red", "missed": "orange"}),
    ),
    timeseries(
        "Query time p90",
        "90 of 100 queries of rules, dashboards and users are answered within this time, by phase.",
        Query('max by (slice) (prometheus_engine_query_duration_seconds{quantile="0.9"}) >= 0', "{{slice}}"),
        unit="s",
        no_value="No queries in this range",
    ),
)

STORAGE = (
    timeseries(
        "Series in memory",
        "Time series in Prometheus' memory.",
        Query("sum(prometheus_tsdb_head_series)", "series"),
        unit="short",
    ),
    timeseries(
        "Ingestion rate",
        "Samples per second.",
        Query("sum(rate(prometheus_tsdb_head_samples_appended_total[@rate]))", "samples"),
        unit="short",
    ),
    timeseries(
        "Disk space by use",
        "Disk space used by Prometheus: blocks, write-ahead log and head chunks.",
        (
            Query("sum(prometheus_tsdb_storage_blocks_bytes)", "blocks"),
            Query("sum(prometheus_tsdb_wal_storage_size_bytes)", "write-ahead log"),
            Query("sum(prometheus_tsdb_head_chunks_storage_size_bytes)", "head"),
        ),
        unit="bytes",
        stacked=True,
    ),
    timeseries(
        "TSDB failures",
        "Failed compactions, damaged log segments, and samples that came too late or twice, per minute.",
        (
            Query("60 * sum(rate(prometheus_tsdb_compactions_failed_total[@rate]))", "failed compactions"),
            Query("60 * sum(rate(prometheus_tsdb_wal_corruptions_total[@rate]))", "damaged segments"),
            Query("60 * sum(rate(prometheus_tsdb_out_of_order_samples_total[@rate]))", "out of order"),
            Query(
                "60 * sum(rate(prometheus_target_scrapes_sample_duplicate_timestamp_total[@rate]))",
                "duplicates",
            ),
        ),
        unit=PER_MINUTE,
        overrides=coloured({"failed compactions": "red", "damaged segments": "dark-red"}),
    ),
    timeseries(
        "Memory",
        "Resident memory of Prometheus, Alertmanager and the exporters.",
        Query("max by (job, instance) (process_resident_memory_bytes{@target})", "{{job}} {{instance}}"),
        unit="bytes",
        legend="right",
        links=(ONE_TARGET,),
    ),
    timeseries(
        "CPU",
        "CPU time of Prometheus, Alertmanager and the exporters; 100 % is one core.",
        Query("sum by (job, instance) (rate(process_cpu_seconds_total{@target}[@rate]))", "{{job}} {{instance}}"),
        unit="percentunit",
        soft_highest=0.1,
        legend="right",
        links=(ONE_TARGET,),
    ),
    timeseries(
        "Open files",
        "Open files and connections of each process, as a share of its limit.",
        Query(
            "max by (job, instance) (process_open_fds{@target} / process_max_fds{@target})",
            "{{job}} {{instance}}",
        ),
        unit="percentunit",
        legend="right",
        links=(ONE_TARGET,),
    ),
    timeseries(
        "Uptime",
        "Time since the process started; with several workers, since the most recent start of one.",
        Query("time() - max by (job, instance) (process_start_time_seconds{@target})", "{{job}} {{instance}}"),
        unit="s",
        legend="right",
        links=(ONE_TARGET,),
    ),
)

DASHBOARD = dashboard(
    "Monitoring",
    "Does the monitoring work? Targets, rules, alerts and their notifications, storage and processes.",
    variables=VARIABLES,
    rows=(
        Row("", sixths(STRIP)),
        Row("Targets", (TARGETS[0].sized(12, 9), *quarters(TARGETS[1:], 9))),
        Row("Alerts", (ALERTING[0].sized(18, 7), *quarters(ALERTING[1:], 7))),
        Row("Notifications", thirds(NOTIFICATIONS, 7)),
        Row("Rules", thirds(RULES, 7)),
        Row("Remote write", thirds(REMOTE_WRITE, 7), collapsed=True),
        Row("Storage and processes", (*quarters(STORAGE[:4]), *halves(STORAGE[4:])), collapsed=True),
    ),
)
