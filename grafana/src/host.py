"""Host: utilization, saturation and errors of the machines that everything runs on."""

from __future__ import annotations

from prometheus.src.recorded import exported

from . import slo
from .common import IN, NODE, OUT, REBOOTS, dashboard, only
from .model import Link, Panel, Query, Row
from .panels import (
    Column,
    Steps,
    coloured,
    fixed,
    full,
    override_matching,
    quarters,
    sixths,
    stat,
    table,
    thirds,
    timeseries,
)
from .promql import HOSTS, or_zero

# File systems that hold data; what lives in memory or is layered over another one fills up by design.
DATA = 'fstype!~"tmpfs|ramfs|devtmpfs|overlay|squashfs|iso9660|erofs|fuse.*|autofs|nsfs"'
DISKS = 'device!~"loop.*|ram.*|zram.*|sr.*|fd.*"'
CARDS = 'device!~"lo|veth.*|docker.*|br-.*|ifb.*"'
CPU = '1 - avg by (instance) (rate(node_cpu_seconds_total{@host, mode="idle"}[@rate]))'
CORES = 'count by (instance) (node_cpu_seconds_total{@host, mode="idle"})'
LOAD = f"max by (instance) (node_load1{{@host}}) / {CORES}"
MEMORY = "1 - node_memory_MemAvailable_bytes{@host} / node_memory_MemTotal_bytes{@host}"
SPACE = f"1 - node_filesystem_avail_bytes{{@host, {DATA}}} / (node_filesystem_size_bytes{{@host, {DATA}}} > 0)"
# Orange where it is worth a look, red where an alert fires.
FREE_DISK, FREE_MEMORY = slo.threshold("disk_free_ratio"), slo.threshold("memory_available_ratio")
CPU_STEPS = slo.red_at("cpu_busy_ratio", 0.8)
MEMORY_STEPS = Steps(1 - 2 * FREE_MEMORY, 1 - FREE_MEMORY)
DISK_STEPS = Steps(1 - 4 * FREE_DISK, 1 - FREE_DISK)
LOAD_STEPS = slo.red_at("load_per_cpu", 0.5)
FREE = f"node_filesystem_avail_bytes{{@host, {DATA}}}"
# How long a file system lasts if it fills as in the last 6 hours; one that does not fill has no answer.
FULL_IN = f"min by (instance) ({FREE} / (deriv({FREE}[6h]) < 0) * -1)"
ONE_HOST = only("Only ${__field.labels.nodename}", "Host", (NODE,), NODE, "__field.labels.instance")


def named(expr: str) -> str:
    """`expr` of each host with the host's name, which says more than the address of its exporter."""
    return f"({expr}) * on (instance) group_left (nodename) max by (instance, nodename) ({HOSTS})"


def disks(metric: str) -> str:
    """Rate of a counter of all disks of each host."""
    return f"sum by (instance) (rate(node_disk_{metric}_total{{@host, {DISKS}}}[@rate]))"


def each_host(title: str, description: str, expr: str, *links: Link) -> Panel:
    """A share of something, a line for each host."""
    return timeseries(
        title,
        description,
        Query(named(expr), "{{nodename}}"),
        unit="percentunit",
        highest=1,
        legend="names",
        links=links,
    )


def fullest(title: str, description: str, expr: str, steps: Steps, *links: Link) -> Panel:
    """A share of something, of what has most of it."""
    return stat(
        title,
        description,
        f"max({expr})",
        unit="percentunit",
        decimals=0,
        steps=steps,
        links=links,
    )


def cpu(*links: Link) -> Panel:
    description = "Busy share of all processors, of the busiest host. A load generator on the same host takes its part."
    return fullest("CPU", description, CPU, CPU_STEPS, *links)


def memory(*links: Link) -> Panel:
    description = "Memory that is not available to programs, of the fullest host."
    return fullest("Memory", description, MEMORY, MEMORY_STEPS, *links)


def disk(*links: Link) -> Panel:
    return fullest("Disk", "Used space of the fullest file system.", SPACE, DISK_STEPS, *links)


def cpu_by_host(*links: Link) -> Panel:
    return each_host("CPU by host", "Busy share of all processors of each host.", CPU, *links)


def memory_by_host(*links: Link) -> Panel:
    return each_host("Memory by host", "Memory that is not available to programs, of each host.", MEMORY, *links)


def disk_throughput(*links: Link) -> Panel:
    return timeseries(
        "Disk throughput",
        "Bytes per second that each host reads from its disks (up) and writes to them (down).",
        (
            Query(named(disks("read_bytes")), "{{nodename}} read"),
            Query(named(disks("written_bytes")), "{{nodename}} written"),
        ),
        unit="Bps",
        lowest=None,
        overrides=(
            override_matching(".* read", color=fixed(IN)),
            override_matching(".* written", color=fixed(OUT), custom_transform="negative-Y"),
        ),
        legend="names",
        links=links,
    )


def network_throughput(*links: Link) -> Panel:
    kinds = {"received": "receive", "sent": "transmit"}
    return timeseries(
        "Network throughput",
        "Bytes per second that each network card receives (up) and sends (down).",
        tuple(
            Query(
                named(f"sum by (instance, device) (rate(node_network_{kind}_bytes_total{{@host, {CARDS}}}[@rate]))"),
                f"{{{{nodename}}}} {{{{device}}}} {name}",
            )
            for name, kind in kinds.items()
        ),
        unit="Bps",
        lowest=None,
        overrides=(
            override_matching(".* received", color=fixed(IN)),
            override_matching(".* sent", color=fixed(OUT), custom_transform="negative-Y"),
        ),
        legend="names",
        links=links,
    )


PACKETS = "count:packets/s"
# A virtual card has no speed, or -1.
SATURATION = " or ".join(
    f"rate(node_network_{kind}_bytes_total{{@host, {CARDS}}}[@rate]) / (node_network_speed_bytes{{@host, {CARDS}}} > 0)"
    for kind in ("receive", "transmit")
)
NETWORK_ERRORS = " + ".join(
    f"sum by (instance, device) (rate(node_network_{kind}_total{{@host, {CARDS}}}[@rate]))"
    for kind in ("receive_errs", "transmit_errs", "receive_drop", "transmit_drop")
)

SWAPPED = (
    f"rate({exported('node_vmstat_pswpin')}{{@host}}[@rate]) + rate({exported('node_vmstat_pswpout')}{{@host}}[@rate])"
)
SEGMENTS = f"rate({exported('node_netstat_Tcp_OutSegs')}{{@host}}[@rate])"
RETRANSMITTED = f"rate({exported('node_netstat_Tcp_RetransSegs')}{{@host}}[@rate]) / ({SEGMENTS} > 0) or 0 * {SEGMENTS}"
SWAP_USED = "1 - node_memory_SwapFree_bytes{@host} / (node_memory_SwapTotal_bytes{@host} > 0)"

STRIP = (
    cpu(),
    stat(
        "Load/core",
        "Processes that run or want to run, per processor; above 1 they wait. Of the worst host.",
        f"max({LOAD})",
        unit="none",
        decimals=2,
        steps=LOAD_STEPS,
    ),
    stat(
        "CPU PSI",
        "Pressure stall information: share of time in which something waited for a processor, of the worst host.",
        or_zero("max(rate(node_pressure_cpu_waiting_seconds_total{@host}[@rate]))", HOSTS),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.25, 0.5),
    ),
    memory(),
    stat(
        "Swap used",
        "Used share of the swap space, of the fullest host; 0 where there is none.",
        or_zero(f"max({SWAP_USED})", HOSTS),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.2, 0.8),
    ),
    stat(
        "OOM kills",
        "Processes that the kernel killed in the time range because memory ran out.",
        f"sum(increase({exported('node_vmstat_oom_kill')}{{@host}}[$__range]))",
        unit="none",
        decimals=0,
        steps=Steps(None, 1),
    ),
    disk(),
    stat(
        "Disk util.",
        "Share of time in which the busiest disk had work to do.",
        or_zero(f"max(rate(node_disk_io_time_seconds_total{{@host, {DISKS}}}[@rate]))", HOSTS),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.7, 0.9),
    ),
    stat(
        "Net util.",
        "Share of its speed that the busiest network card sends or receives; 0 where no card has a known speed.",
        or_zero(f"max({SATURATION})", HOSTS),
        unit="percentunit",
        decimals=0,
        steps=Steps(0.7, 0.9),
    ),
    stat(
        "Net errors",
        "Packets per second that were dropped or damaged, on all network cards.",
        or_zero(f"sum({NETWORK_ERRORS})", HOSTS),
        unit="count:/s",
        decimals=1,
        steps=Steps(1, 10),
    ),
    stat(
        "TCP resent",
        "Share of TCP segments that had to be sent again, of the worst host.",
        f"max({RETRANSMITTED})",
        unit="percentunit",
        decimals=1,
        steps=Steps(0.01, 0.02),
    ),
    stat(
        "Uptime",
        "Since the host that started last.",
        "min(node_time_seconds{@host} - node_boot_time_seconds{@host})",
        unit="s",
        decimals=1,
    ),
)

BY_HOST = (
    table(
        "Hosts",
        "Every host at the end of the time range. Disk full in: when the first file system is full if it goes on "
        "filling as in the last 6 hours; `-` where none fills up.",
        (
            Query("sum by (instance, nodename, release) (node_uname_info{@host})", instant=True, format="table"),
            Query(CORES, instant=True, format="table"),
            Query(CPU, instant=True, format="table"),
            Query(LOAD, instant=True, format="table"),
            Query("sum by (instance) (node_memory_MemTotal_bytes{@host})", instant=True, format="table"),
            Query(f"max by (instance) ({MEMORY})", instant=True, format="table"),
            Query(f"max by (instance) ({SPACE})", instant=True, format="table"),
            Query(FULL_IN, instant=True, format="table"),
            Query(
                "max by (instance) (node_time_seconds{@host} - node_boot_time_seconds{@host})",
                instant=True,
                format="table",
            ),
        ),
        unit="short",
        columns=(
            Column(
                "nodename", "Host", links=(only("Only this host", "Host", (NODE,), NODE, "__data.fields.Exporter"),)
            ),
            Column("instance", "Exporter"),
            Column("release", "Kernel"),
            Column("Value #B", "Processors", unit="none", width=110),
            Column("Value #C", "CPU", unit="percentunit", width=110, steps=CPU_STEPS, decimals=0),
            Column("Value #D", "Load per core", unit="none", width=110, steps=LOAD_STEPS, decimals=2),
            Column("Value #E", "Memory", unit="bytes", width=110),
            Column("Value #F", "Memory used", unit="percentunit", width=110, steps=MEMORY_STEPS, decimals=0),
            Column("Value #G", "Fullest disk", unit="percentunit", width=110, steps=DISK_STEPS, decimals=0),
            Column("Value #H", "Disk full in", unit="s", width=120),
            Column("Value #I", "Uptime", unit="s", width=110),
        ),
    ),
)

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
        "Where the processors' time goes, on average over the chosen hosts; idle is left out. Waiting for disks is "
        "iowait, a neighbour's share is steal.",
        Query(
            'sum by (mode) (rate(node_cpu_seconds_total{@host, mode!="idle"}[@rate]))'
            ' / scalar(count(node_cpu_seconds_total{@host, mode="idle"}))',
            "{{mode}}",
        ),
        unit="percentunit",
        stacked=True,
        highest=1,
        overrides=coloured(MODE_COLOURS),
        legend="names",
    ),
    timeseries(
        "Load per core by host",
        "Processes that run or want to run, per processor, on average over 1 and 15 minutes. Above the line for long, "
        "the host has too much to do.",
        (
            Query(named(LOAD), "{{nodename}} 1 m"),
            Query(named(LOAD.replace("load1", "load15")), "{{nodename}} 15 m"),
        ),
        unit="none",
        limit=slo.threshold("load_per_cpu"),
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Pressure stall (PSI) by host",
        "Pressure stall information: share of time in which at least one task waited for a processor, for memory or "
        "for a disk. Kernels without it have no lines.",
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
        legend="names",
        links=(ONE_HOST,),
    ),
)

MEMORY_ROW = (
    timeseries(
        "Memory by use",
        "Used by programs and the kernel, holding files (given back on demand), and free, of all chosen hosts.",
        (
            Query("sum(node_memory_MemTotal_bytes{@host} - node_memory_MemAvailable_bytes{@host})", "used"),
            Query("sum(node_memory_MemAvailable_bytes{@host} - node_memory_MemFree_bytes{@host})", "files"),
            Query("sum(node_memory_MemFree_bytes{@host})", "free"),
        ),
        unit="bytes",
        stacked=True,
        overrides=coloured({"used": "orange", "files": "blue", "free": "green"}),
        legend="names",
    ),
    memory_by_host(ONE_HOST),
    timeseries(
        "OOM kills and swap used",
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
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
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
        legend="names",
        links=(ONE_HOST,),
    ),
)

DISK = (
    timeseries(
        "Space used",
        "Used share of every file system that holds data. At the line an alert fires.",
        Query(named(SPACE), "{{nodename}} {{mountpoint}}"),
        unit="percentunit",
        highest=1,
        limit=1 - FREE_DISK,
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Disks full, forecast",
        "Free space that each file system will have in 24 hours if it goes on as in the last 6. Below the line it is "
        "full.",
        Query(named(f"predict_linear({FREE}[6h], 86400)"), "{{nodename}} {{mountpoint}}"),
        unit="bytes",
        lowest=None,
        limit=0,
        legend="names",
        links=(ONE_HOST,),
    ),
    disk_throughput(ONE_HOST),
    timeseries(
        "Disk utilization by disk",
        "Share of time in which the disk had work to do. Fast disks bear more even at 100 %.",
        Query(
            named(f"sum by (instance, device) (rate(node_disk_io_time_seconds_total{{@host, {DISKS}}}[@rate]))"),
            "{{nodename}} {{device}}",
        ),
        unit="percentunit",
        soft_highest=0.1,
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
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
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Disk latency",
        "Average time of a read and of a write, waiting included, of all disks of each host.",
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
        legend="names",
        links=(ONE_HOST,),
    ),
)

NETWORK = (
    network_throughput(ONE_HOST),
    timeseries(
        "Network saturation by card",
        "Share of its speed that each network card sends or receives, whichever is more. Virtual cards have no speed "
        "and no line.",
        Query(named(f"max by (instance, device) ({SATURATION})"), "{{nodename}} {{device}}"),
        unit="percentunit",
        soft_highest=0.1,
        no_value="No network card has a known speed",
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Errors and drops",
        "Packets per second that were damaged or dropped, by network card.",
        Query(named(NETWORK_ERRORS), "{{nodename}} {{device}}"),
        unit=PACKETS,
        soft_highest=1,
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "TCP retransmissions",
        "Share of TCP segments that had to be sent again: the network loses some, or a peer is slow.",
        Query(named(f"max by (instance) ({RETRANSMITTED})"), "{{nodename}}"),
        unit="percentunit",
        limit=0.02,
        legend="names",
        links=(ONE_HOST,),
    ),
)

LIMITS = (
    timeseries(
        "Open files",
        "Open files of each host, as a share of what its kernel allows.",
        Query(named("node_filefd_allocated{@host} / node_filefd_maximum{@host}"), "{{nodename}}"),
        unit="percentunit",
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Inodes used",
        "Used share of each file system's inodes: it can be full of files while space is left.",
        Query(
            named(f"1 - node_filesystem_files_free{{@host, {DATA}}} / (node_filesystem_files{{@host, {DATA}}} > 0)"),
            "{{nodename}} {{mountpoint}}",
        ),
        unit="percentunit",
        highest=1,
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Clock offset",
        "How far the host's clock is from its time server's. Zero also if the kernel does not know it.",
        Query(named("node_timex_offset_seconds{@host}"), "{{nodename}}"),
        unit="s",
        lowest=None,
        soft_highest=0.01,
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "TCP connections",
        "Established TCP connections of each host.",
        Query(named("node_netstat_Tcp_CurrEstab{@host}"), "{{nodename}}"),
        unit="none",
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Context switches",
        "Switches between tasks per second.",
        Query(named("sum by (instance) (rate(node_context_switches_total{@host}[@rate]))"), "{{nodename}}"),
        unit="count:switches/s",
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Processes",
        "Threads that run or want to run, and those that wait for a disk and cannot be interrupted.",
        (
            Query(named("node_procs_running{@host}"), "{{nodename}} running"),
            Query(named("node_procs_blocked{@host}"), "{{nodename}} blocked"),
        ),
        unit="none",
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "New processes and threads",
        "Processes and threads that were started per second.",
        Query(named("rate(node_forks_total{@host}[@rate])"), "{{nodename}}"),
        unit="count:/s",
        legend="names",
        links=(ONE_HOST,),
    ),
    timeseries(
        "Sockets",
        "Sockets of all kinds that are in use.",
        Query(named("node_sockstat_sockets_used{@host}"), "{{nodename}}"),
        unit="none",
        legend="names",
        links=(ONE_HOST,),
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
        Row("Processors", quarters(PROCESSOR, 7)),
        Row("Memory", quarters(MEMORY_ROW, 7)),
        Row("Disks", thirds(DISK, 7)),
        Row("Network", quarters(NETWORK, 7)),
        Row("Limits and kernel", quarters(LIMITS, 7), collapsed=True),
    ),
)
