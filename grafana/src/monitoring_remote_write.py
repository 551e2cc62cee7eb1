"""Monitoring: whether a second store receives the samples; docs/remote-write.md describes its setup."""

from __future__ import annotations

from . import slo
from .looks import coloured, dashed
from .model import Query
from .panels import timeseries

# As the alert computes it (a test compares them): before the first sample, behind by the uptime of Prometheus.
_BEHIND = (
    "max by (remote_name) (prometheus_remote_storage_highest_timestamp_in_seconds - ignoring (remote_name, url) "
    "group_right () ((prometheus_remote_storage_queue_highest_sent_timestamp_seconds > 0) "
    "or 0 * prometheus_remote_storage_shards_max + on (job, instance) group_left () "
    "max by (job, instance) (process_start_time_seconds)))"
)
_OFF = "No second store is configured"

REMOTE_WRITE = (
    timeseries(
        "Behind",
        "Age of the newest sample that each store has received, relative to Prometheus' newest one. Above the line "
        "an alert fires. Samples that wait for more than two hours, or while Prometheus restarts, are lost there.",
        (
            Query(_BEHIND, "{{remote_name}}"),
            Query(f"{slo.threshold('remote_write_lag_seconds'):g} + 0 * max({_BEHIND})", "alert"),
        ),
        unit="s",
        overrides=dashed("alert", colour="red"),
        no_value=_OFF,
    ),
    timeseries(
        "Samples to stores",
        "Samples per second that the stores have received, that are resent after an error, and that are lost "
        "there: rejected by the store, or dropped.",
        (
            Query("sum(rate(prometheus_remote_storage_samples_total[@rate]))", "sent"),
            Query("sum(rate(prometheus_remote_storage_samples_retried_total[@rate]))", "retried"),
            Query(
                "sum(rate(prometheus_remote_storage_samples_failed_total[@rate]) or "
                'rate(prometheus_remote_storage_samples_dropped_total{reason!="dropped_series"}[@rate]))',
                "lost",
            ),
        ),
        unit="short",
        overrides=coloured({"sent": "green", "retried": "orange", "lost": "red"}),
        no_value=_OFF,
    ),
    timeseries(
        "Waiting samples",
        "Samples that wait to be sent. They grow while a store does not respond or is too slow.",
        Query("sum by (remote_name) (prometheus_remote_storage_samples_pending)", "{{remote_name}}"),
        unit="short",
        no_value=_OFF,
    ),
)
