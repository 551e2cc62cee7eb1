"""HTTP: what only HAProxy, in front of the replicas, can measure; docs/scale.md describes when there is one."""

from __future__ import annotations

from .common import STATUS_COLOURS
from .looks import PER_MINUTE, coloured, values
from .model import Query
from .panels import state_timeline, timeseries

NO_PROXY = "No proxy in this range"
BACKENDS = 'job="proxy"'
REPLICAS = 'job="proxy", proxy="app"'  # `unready` has the same ones again, for when none is ready
# A state timeline without data shows a text of Grafana's own, whatever its noValue: without a proxy it has this band.
WITHOUT = (
    'label_replace(vector(2), "server", "proxy", "", "")'
    f" unless on () last_over_time(haproxy_server_status{{{REPLICAS}}}[$__range] @ end())"
)
STATES = {"UP": 1, "DRAIN": 0.5, "NOLB": 0.5, "DOWN": 0}  # as HAProxy calls them; MAINT: a slot without a replica


def _counted(counter: str, *by: str) -> str:
    """Events per second, while the proxy responds: a rate continues for its five minutes."""
    of_whom = f" by ({', '.join(by)})" if by else ""
    up = f"on (job, instance) up{{{BACKENDS}}} == 1"
    return f"sum{of_whom} (rate(haproxy_backend_{counter}_total{{{BACKENDS}}}[5m]) and {up})"


PROXY = (
    state_timeline(
        "Proxy: replicas",
        "Replicas as the proxy's checks of /readyz see them. While none is up, it sends requests to all of them.",
        Query(
            " or ".join(
                f'{value:g} + 0 * (max by (server) (haproxy_server_status{{{REPLICAS}, state="{state}"}}) == 1)'
                for state, value in STATES.items()
            )
            + f" or on () ({WITHOUT})",
            "{{server}}",
        ),
        unit="none",
        mappings=(
            values(
                {
                    "0": ("down", "red"),
                    "0.5": ("drains", "orange"),
                    "1": ("up", "green"),
                    "2": ("none in this range", "transparent"),
                }
            ),
        ),
    ),
    timeseries(
        "Proxy: responses",
        "Responses per second to clients by class of status. More 5xx than the service counts are the proxy's own: "
        "502 if a replica disconnected before the end of its headers, 503 if none accepted the request, 504 if it took "
        "too long.",
        Query(_counted("http_responses", "code"), "{{code}}"),
        unit="reqps",
        stacked=True,
        overrides=coloured({**STATUS_COLOURS, "other": "text"}),
        no_value=NO_PROXY,
    ),
    timeseries(
        "Proxy: retries",
        "Retries: connections that a replica refused and that were retried; redispatched: on another replica. Clients "
        "notice neither. Not connected: no attempt succeeded. Broken off: a replica's response was incomplete.",
        tuple(
            Query(f"60 * {_counted(counter)}", name)
            for name, counter in (
                ("retries", "retry_warnings"),
                ("redispatched", "redispatch_warnings"),
                ("not connected", "connection_errors"),
                ("broken off", "response_errors"),
            )
        ),
        unit=PER_MINUTE,
        overrides=coloured(
            {"retries": "yellow", "redispatched": "orange", "not connected": "dark-red", "broken off": "red"}
        ),
        no_value=NO_PROXY,
    ),
    timeseries(
        "Proxy: sessions",
        "Connections of clients that are open, and requests that wait in the proxy for a replica.",
        (
            Query('sum(haproxy_frontend_current_sessions{job="proxy", proxy="service"})', "sessions"),
            Query(f"sum(haproxy_backend_current_queue{{{BACKENDS}}})", "queued"),
        ),
        unit="none",
        overrides=coloured({"sessions": "blue", "queued": "red"}),
        no_value=NO_PROXY,
    ),
)
