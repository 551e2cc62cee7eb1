"""Host, row by row: CPU, memory, disks, network, limits of the kernel."""

from __future__ import annotations

from functools import partial

from prometheus.src.recorded import exported

from . import slo
from .common import IN, NODE, OUT, only
from .host_usage import (
    CARDS,
    DATA,
    DISKS,
    FREE_DISK,
    INODES,
    LOAD,
    SPACE,
    cpu_by_host,
    disk_throughput,
    disks,
    memory_by_host,
    named,
    network_throughput,
)
from .looks import coloured, fixed, override_matching
from .model import Query
from .panels import timeseries

FREE = f"node_filesystem_avail_bytes{{@host, {DATA}}}"
KNOWN = f"{FREE} offset 1h"  # a trend over minutes does not predict a day
ONE_HOST = only("Only ${__field.labels.nodename}", "Host", (NODE,), NODE, "__field.labels.instance")


PACKETS = "count:packets/s"
# A virtual interface has no speed, or -1.
SATURATION = " or ".join(
    f"rate(node_network_{kind}_bytes_total{{@host, {CARDS}}}[@rate]) / (node_network_speed_bytes{{@host, {CARDS}}} > 0)"
    for kind in ("receive", "transmit")
)
NETWORK_ERRORS = " + ".join(
    f"sum by (instance, device) (rate(node_network_{kind}_total{{@host, {CARDS}}}[@rate]))"
    for kind in ("receive_errs", "transmit_errs", "receive_drop", "transmit_drop")
)

# The kernel reserves some memory: if little is free, less may be available than is free.
FILES = "clamp_min(node_memory_MemAvailable_bytes{@host} - node_memory_MemFree_bytes{@host}, 0)"
SWAPPED = (
    f"rate({exported('node_vmstat_pswpin')}{{@host}}[@rate]) + rate({exported('node_vmstat_pswpout')}{{@host}}[@rate])"
)
SEGMENTS = f"rate({exported('node_netstat_Tcp_OutSegs')}{{@host}}[@rate])"
RETRANSMITTED = f"rate({exported('node_netstat_Tcp_RetransSegs')}{{@host}}[@rate]) / ({SEGMENTS} > 0) or 0 * {SEGMENTS}"
SWAP_USED = "1 - node_memory_SwapFree_bytes{@host} / (node_memory_SwapTotal_bytes{@host} > 0)"

by_host = partial(timeseries, links=(ONE_HOST,))

MODE_COLOURS = {
    "user": "blue",
    "system": "orange",
    "iowait": "red",
    "nice": "green",
    "irq": "purple",
    "softirq": "light-purple",
    "steal": "yellow",
}

PROCESSOR = (
    cpu_by_host(ONE_HOST),
    timeseries(
        "CPU by mode",
        "CPU time by mode without idle, averaged over the chosen hosts. iowait: waiting for disks; steal: taken by "
        "other virtual machines.",
        Query(
            'sum by (mode) (rate(node_cpu_seconds_total{@host, mode!="idle"}[@rate]))'
            ' / scalar(count(node_cpu_seconds_total{@host, mode="idle"}))',
            "{{mode}}",
        ),
        unit="percentunit",
        stacked=True,
        highest=1,
        overrides=coloured(MODE_COLOURS),
    ),
    by_host(
        "Load per core by host",
        "Runnable processes per core, averaged over 1 and 15 minutes. A host that stays above the line is overloaded.",
        (
            Query(named(LOAD), "{{nodename}} 1 m"),
            Query(named(LOAD.replace("load1", "load15")), "{{nodename}} 15 m"),
        ),
        unit="none",
        limit=slo.threshold("load_per_cpu"),
    ),
    by_host(
        "Pressure stall (PSI)",
        "Pressure stall information: share of time in which at least one task waited for the CPU, for memory or for a "
        "disk. No lines if the kernel does not support it.",
        tuple(
            Query(
                named(f"max by (instance) (rate(node_pressure_{resource}_waiting_seconds_total{{@host}}[@rate]))"),
                f"{{{{nodename}}}} {name}",
            )
            for resource, name in (("cpu", "processor"), ("memory", "memory"), ("io", "disk"))
        ),
        unit="percentunit",
        soft_highest=0.1,
        no_value="The kernel reports no pressure",
    ),
)

MEMORY_ROW = (
    timeseries(
        "Memory by use",
        "Used by programs and the kernel, page cache (released on demand), and free, of all chosen hosts.",
        (
            Query("sum(node_memory_MemTotal_bytes{@host} - node_memory_MemAvailable_bytes{@host})", "used"),
            Query(f"sum({FILES})", "files"),
            Query(f"sum(node_memory_MemAvailable_bytes{{@host}} - {FILES})", "free"),
        ),
        unit="bytes",
        stacked=True,
        overrides=coloured({"used": "orange", "files": "blue", "free": "green"}),
    ),
    memory_by_host(ONE_HOST),
    by_host(
        "OOM kills, swap used",
        "Processes that the kernel killed within 5 minutes because memory ran out (left), and the used share of the "
        "swap space (right).",
        (
            Query(
                named(f"sum by (instance) (increase({exported('node_vmstat_oom_kill')}{{@host}}[5m]))"),
                "{{nodename}} OOM kills",
            ),
            Query(named(SWAP_USED), "{{nodename}} swap used"),
        ),
        unit="none",
        overrides=(
            override_matching(".* OOM kills", color=fixed("red")),
            override_matching(
                ".* swap used", color=fixed("blue"), unit="percentunit", max=1, custom_axisPlacement="right"
            ),
        ),
    ),
    by_host(
        "Swapping by host",
        "Pages per second read from swap or written to it, and page faults that had to wait for a disk (major faults).",
        (
            Query(named(f"sum by (instance) ({SWAPPED})"), "{{nodename}} swapped"),
            Query(
                named(f"sum by (instance) (rate({exported('node_vmstat_pgmajfault')}{{@host}}[@rate]))"),
                "{{nodename}} major faults",
            ),
        ),
        unit="count:pages/s",
    ),
)

DISK = (
    by_host(
        "Space used",
        "Used share of every file system that holds data and can be written. At the line an alert fires.",
        Query(named(SPACE), "{{nodename}} {{mountpoint}}"),
        unit="percentunit",
        highest=1,
        limit=1 - FREE_DISK,
    ),
    by_host(
        "Disks full, forecast",
        "Free space of each file system in 24 hours at the rate of the last 6 hours; at 0 it is full by then. "
        "Needs an hour of history.",
        Query(named(f"clamp_min(predict_linear({FREE}[6h], 86400), 0) and {KNOWN}"), "{{nodename}} {{mountpoint}}"),
        unit="bytes",
        limit=0,
        no_value="A forecast needs an hour of history",
    ),
    disk_throughput(ONE_HOST),
    by_host(
        "Disk utilization by disk",
        "Share of time in which the disk was in use. Fast disks can do more even at 100 %.",
        Query(
            named(f"sum by (instance, device) (rate(node_disk_io_time_seconds_total{{@host, {DISKS}}}[@rate]))"),
            "{{nodename}} {{device}}",
        ),
        unit="percentunit",
        soft_highest=0.1,
    ),
    by_host(
        "Disk operations (IOPS)",
        "Reads (up) and writes (down) per second that each host's disks completed.",
        (
            Query(named(disks("reads_completed")), "{{nodename}} read"),
            Query(named(disks("writes_completed")), "{{nodename}} written"),
        ),
        unit="iops",
        lowest=None,
        overrides=(
            override_matching(".* read", color=fixed(IN)),
            override_matching(".* written", color=fixed(OUT), custom_transform="negative-Y"),
        ),
    ),
    by_host(
        "Disk latency",
        "Average time of a read and of a write, including waiting, of all disks of each host.",
        tuple(
            Query(
                named(f"{disks(times)} / ({disks(number)} > 0) or 0 * {disks(number)}"),
                f"{{{{nodename}}}} {name}",
            )
            for name, times, number in (
                ("read", "read_time_seconds", "reads_completed"),
                ("write", "write_time_seconds", "writes_completed"),
            )
        ),
        unit="s",
        overrides=(
            override_matching(".* read", color=fixed(IN)),
            override_matching(".* write", color=fixed(OUT)),
        ),
    ),
)

NETWORK = (
    network_throughput(ONE_HOST),
    by_host(
        "Network saturation",
        "Utilization of each network interface, sent or received, whichever is higher, relative to its speed. Virtual "
        "interfaces have no known speed and no line.",
        Query(named(f"max by (instance, device) ({SATURATION})"), "{{nodename}} {{device}}"),
        unit="percentunit",
        soft_highest=0.1,
        no_value="No network interface has a known speed",
    ),
    by_host(
        "Errors and drops",
        "Packets per second that were corrupted or dropped, by network interface.",
        Query(named(NETWORK_ERRORS), "{{nodename}} {{device}}"),
        unit=PACKETS,
        soft_highest=1,
    ),
    by_host(
        "TCP retransmissions",
        "Share of TCP segments that were retransmitted: the network loses some, or a peer is slow.",
        Query(named(f"max by (instance) ({RETRANSMITTED})"), "{{nodename}}"),
        unit="percentunit",
        limit=0.02,
    ),
)

LIMITS = (
    by_host(
        "Open files",
        "Open files of each host, as a share of what its kernel allows.",
        Query(named("node_filefd_allocated{@host} / node_filefd_maximum{@host}"), "{{nodename}}"),
        unit="percentunit",
    ),
    by_host(
        "Inodes used",
        "Used share of each file system's inodes; they can run out while space is left.",
        Query(
            named(INODES),
            "{{nodename}} {{mountpoint}}",
        ),
        unit="percentunit",
        highest=1,
    ),
    by_host(
        "Clock offset",
        "Offset between the host's clock and its time server; also 0 if the kernel does not report it.",
        Query(named("node_timex_offset_seconds{@host}"), "{{nodename}}"),
        unit="s",
        lowest=None,
        soft_highest=0.01,
    ),
    by_host(
        "TCP connections",
        "Established TCP connections of each host.",
        Query(named("node_netstat_Tcp_CurrEstab{@host}"), "{{nodename}}"),
        unit="none",
    ),
    by_host(
        "Context switches",
        "Switches between tasks per second.",
        Query(named("sum by (instance) (rate(node_context_switches_total{@host}[@rate]))"), "{{nodename}}"),
        unit="count:switches/s",
    ),
    by_host(
        "Processes",
        "Runnable threads, and those in uninterruptible sleep, usually waiting for a disk.",
        (
            Query(named("node_procs_running{@host}"), "{{nodename}} running"),
            Query(named("node_procs_blocked{@host}"), "{{nodename}} blocked"),
        ),
        unit="none",
    ),
    by_host(
        "New processes",
        "Processes and threads that were started per second.",
        Query(named("rate(node_forks_total{@host}[@rate])"), "{{nodename}}"),
        unit="count:/s",
    ),
    by_host(
        "Sockets",
        "Sockets of all kinds that are in use.",
        Query(named("node_sockstat_sockets_used{@host}"), "{{nodename}}"),
        unit="none",
    ),
)
