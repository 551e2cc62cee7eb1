"""Host: utilization, saturation and errors of the machines that everything runs on."""

from __future__ import annotations

from prometheus.src.recorded import exported

from . import slo
from .common import NODE, REBOOTS, dashboard, only
from .common_panels import up_of
from .host_detail import (
    DISK,
    FREE,
    KNOWN,
    LIMITS,
    MEMORY_ROW,
    NETWORK,
    NETWORK_ERRORS,
    PROCESSOR,
    RETRANSMITTED,
    SATURATION,
    SWAP_USED,
)
from .host_usage import (
    CORES,
    CPU,
    CPU_STEPS,
    DISK_STEPS,
    DISKS,
    FULLEST,
    LOAD,
    MEMORY,
    MEMORY_STEPS,
    cpu,
    disk,
    host_stat,
    memory,
)
from .layout import full, quarters, sixths, thirds
from .looks import UP_OR_DOWN, Steps
from .model import Row
from .tables import Column, table

LOAD_STEPS = slo.red_at("load_per_cpu", 0.5)
# The time until a file system is full at the rate of the last 6 hours; no value if it does not fill.
FULL_IN = f"min by (instance) ({FREE} / (deriv({FREE}[6h]) < 0) * -1 and {KNOWN})"

# Includes hosts that do not respond.
KNOWN_HOSTS = "max by (instance) (up{@host} and on (job, instance) last_over_time(node_uname_info{@host}[1d]))"
STRIP = (
    up_of(
        "Hosts up",
        "Hosts whose exporter responds, of those that did within the last day. A host that does not respond is missing "
        "below: it may be the fullest one.",
        KNOWN_HOSTS,
        "none known",
    ),
    cpu(),
    host_stat(
        "Load/core",
        "Runnable processes per core, of the worst host; above 1 some wait.",
        f"max({LOAD})",
        unit="none",
        decimals=2,
        steps=LOAD_STEPS,
    ),
    host_stat(
        "CPU PSI",
        "Pressure stall information: share of time in which a task waited for the CPU, of the worst host. No value if "
        "the kernel does not support it.",
        "max(rate(node_pressure_cpu_waiting_seconds_total{@host}[@rate]))",
        unit="percentunit",
        decimals=0,
        steps=Steps(0.25, 0.5),
    ),
    memory(),
    host_stat(
        "Swap used",
        "Used share of the swap space, of the fullest host; 0 where there is none.",
        f"max({SWAP_USED}) or 0 * max(node_memory_SwapTotal_bytes{{@host}})",
        unit="percentunit",
        decimals=0,
        steps=Steps(0.2, 0.8),
    ),
    host_stat(
        "OOM kills",
        "Processes that the kernel killed in the time range because memory ran out.",
        f"sum(increase({exported('node_vmstat_oom_kill')}{{@host}}[$__range]))",
        unit="none",
        decimals=0,
        steps=Steps(None, 1),
    ),
    disk(),
    host_stat(
        "Disk util.",
        "Share of time in which the busiest disk was in use.",
        f"max(rate(node_disk_io_time_seconds_total{{@host, {DISKS}}}[@rate]))",
        unit="percentunit",
        decimals=0,
        steps=Steps(0.7, 0.9),
    ),
    host_stat(
        "Net util.",
        "Utilization of the busiest network interface, relative to its speed; no value if no speed is known, as for "
        "virtual interfaces.",
        f"max({SATURATION})",
        unit="percentunit",
        decimals=0,
        steps=Steps(0.7, 0.9),
        no_value="unknown",
    ),
    host_stat(
        "Net errors",
        "Packets per second that were dropped or corrupted, on all network interfaces.",
        f"sum({NETWORK_ERRORS})",
        unit="count:/s",
        decimals=1,
        steps=Steps(1, 10),
    ),
    host_stat(
        "TCP resent",
        "Share of TCP segments that were retransmitted, of the worst host.",
        f"max({RETRANSMITTED})",
        unit="percentunit",
        decimals=1,
        steps=Steps(0.01, 0.02),
    ),
)

BY_HOST = (
    table(
        "Hosts",
        "Every host at the end of the time range. Fullest disk: by space or by inodes. Disk full in: time until "
        "the first file system is full at the rate of the last 6 hours; `-` if none fills up, or none has been "
        "known for an hour.",
        (
            "sum by (instance, nodename) (node_uname_info{@host})",
            CORES,
            CPU,
            LOAD,
            "sum by (instance) (node_memory_MemTotal_bytes{@host})",
            f"max by (instance) ({MEMORY})",
            f"max by (instance) ({FULLEST})",
            FULL_IN,
            "max by (instance) (node_time_seconds{@host} - node_boot_time_seconds{@host})",
            KNOWN_HOSTS,
        ),
        unit="short",
        columns=(
            Column(
                "nodename", "Host", links=(only("Only this host", "Host", (NODE,), NODE, "__data.fields.Exporter"),)
            ),
            Column("instance", "Exporter", width=154),
            Column("Value #J", "State", width=54, mappings=(UP_OR_DOWN,)),
            Column("Value #B", "Cores", unit="none", width=56),
            Column("Value #C", "CPU", unit="percentunit", width=60, steps=CPU_STEPS, decimals=0),
            Column("Value #D", "Load/core", unit="none", width=85, steps=LOAD_STEPS, decimals=2),
            Column("Value #E", "Memory", unit="bytes", width=80),
            Column("Value #F", "Used", unit="percentunit", width=60, steps=MEMORY_STEPS, decimals=0),
            Column("Value #G", "Fullest disk", unit="percentunit", width=95, steps=DISK_STEPS, decimals=0),
            Column("Value #H", "Disk full in", unit="s", width=90),
            Column("Value #I", "Uptime", unit="s", width=80),
        ),
    ),
)

DASHBOARD = dashboard(
    "Host",
    "Utilization, saturation and errors of processors, memory, disks and network.",
    variables=(NODE,),
    annotations=(REBOOTS,),
    rows=(
        Row("", sixths(STRIP)),
        Row("Hosts", full(BY_HOST, 4)),
        Row("Processors", quarters(PROCESSOR, 8)),
        Row("Memory", quarters(MEMORY_ROW, 7)),
        Row("Disks", thirds(DISK, 7)),
        Row("Network", quarters(NETWORK, 7)),
        Row("Limits and kernel", quarters(LIMITS, 7), collapsed=True),
    ),
)
