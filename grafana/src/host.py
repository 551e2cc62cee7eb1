"""Host: utilisation, saturation and errors of the machines that everything runs on."""

from __future__ import annotations

from .common import IN, NODE, OUT, REBOOTS, dashboard
from .model import Query, Row
from .panels import (
    Column,
    Steps,
    below_zero,
    coloured,
    dashed,
    fixed,
    override_matching,
    quarters,
    stat,
    table,
    thirds,
    timeseries,
)
from .promql import or_zero

# File systems that hold data; what lives in memory or is layered over another one fills up by design.
DATA = 'fstype!~"tmpfs|ramfs|devtmpfs|overlay|squashfs|iso9660|erofs|fuse.*|autofs|nsfs"'
DISKS = 'device!~"loop.*|ram.*|zram.*|sr.*|fd.*"'
CARDS = 'device!~"lo|veth.*|docker.*|br-.*|ifb.*"'
CPU = '1 - avg by (instance) (rate(node_cpu_seconds_total{@host, mode="idle"}[@rate]))'
CORES = 'count by (instance) (node_cpu_seconds_total{@host, mode="idle"})'
LOAD = f"max by (instance) (node_load1{{@host}}) / {CORES}"
MEMORY = "1 - node_memory_MemAvailable_bytes{@host} / node_memory_MemTotal_bytes{@host}"
SPACE = f"1 - node_filesystem_avail_bytes{{@host, {DATA}}} / (node_filesystem_size_bytes{{@host, {DATA}}} > 0)"
NETWORK_ERRORS = " + ".join(
    f"sum by (instance, device) (rate(node_network_{kind}_total{{@host, {CARDS}}}[@rate]))"
    for kind in ("receive_errs", "transmit_errs", "receive_drop", "transmit_drop")
)

STRIP = tuple(
    panel.sized(3)
    for panel in (
        stat(
            "CPU",
            "Busy share of all processors, of the busiest host.",
            Query(f"max({CPU})"),
            unit="percentunit",
            decimals=0,
            steps=Steps(0.7, 0.9),
            highest=1,
        ),
        stat(
            "Load per core",
            "Processes that run or want to run, per processor; above 1 they wait. Of the worst host.",
            Query(f"max({LOAD})"),
            unit="none",
            decimals=2,
            steps=Steps(1, 2),
        ),
        stat(
            "CPU pressure",
            "Share of time in which something waited for a processor, of the worst host.",
            Query(or_zero("max(rate(node_pressure_cpu_waiting_seconds_total{@host}[@rate]))")),
            unit="percentunit",
            decimals=0,
            steps=Steps(0.25, 0.5),
            highest=1,
        ),
        stat(
            "Memory",
            "Memory that is not available to programs, of the fullest host.",
            Query(f"max({MEMORY})"),
            unit="percentunit",
            decimals=0,
            steps=Steps(0.8, 0.9),
            highest=1,
        ),
        stat(
            "Disk space",
            "Used space of the fullest file system.",
            Query(f"max({SPACE})"),
            unit="percentunit",
            decimals=0,
            steps=Steps(0.8, 0.9),
            highest=1,
        ),
        stat(
            "Disk busy",
            "Share of time in which the busiest disk had work to do.",
            Query(or_zero(f"max(rate(node_disk_io_time_seconds_total{{@host, {DISKS}}}[@rate]))")),
            unit="percentunit",
            decimals=0,
            steps=Steps(0.7, 0.9),
            highest=1,
        ),
        stat(
            "Network errors",
            "Packets per second that were dropped or damaged, on all network cards.",
            Query(or_zero(f"sum({NETWORK_ERRORS})")),
            unit="pps",
            decimals=1,
            steps=Steps(1, 10),
        ),
        stat(
            "Uptime",
            "Since the host that started last.",
            Query("min(node_time_seconds{@host} - node_boot_time_seconds{@host})"),
            unit="s",
            decimals=1,
            sparkline=False,
        ),
    )
)

BY_HOST = (
    table(
        "Hosts",
        "Every host at the end of the time range.",
        (
            Query("sum by (instance, nodename, release) (node_uname_info{@host})", instant=True, format="table"),
            Query(CORES, instant=True, format="table"),
            Query(CPU, instant=True, format="table"),
            Query(LOAD, instant=True, format="table"),
            Query("sum by (instance) (node_memory_MemTotal_bytes{@host})", instant=True, format="table"),
            Query(f"max by (instance) ({MEMORY})", instant=True, format="table"),
            Query(f"max by (instance) ({SPACE})", instant=True, format="table"),
            Query(
                "max by (instance) (node_time_seconds{@host} - node_boot_time_seconds{@host})",
                instant=True,
                format="table",
            ),
        ),
        unit="short",
        height=4,
        columns=(
            Column("instance", "Host"),
            Column("nodename", "Name"),
            Column("release", "Kernel"),
            Column("Value #B", "Processors", unit="none", width=150),
            Column("Value #C", "CPU", unit="percentunit", width=150, steps=Steps(0.7, 0.9), decimals=0),
            Column("Value #D", "Load per core", unit="none", width=150, steps=Steps(1, 2), decimals=2),
            Column("Value #E", "Memory", unit="bytes", width=150),
            Column("Value #F", "Memory used", unit="percentunit", width=150, steps=Steps(0.8, 0.9), decimals=0),
            Column("Value #G", "Fullest disk", unit="percentunit", width=150, steps=Steps(0.8, 0.9), decimals=0),
            Column("Value #H", "Uptime", unit="s", width=150),
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
    timeseries(
        "CPU by mode",
        "Where the processors' time goes; idle is left out. Waiting for disks is iowait, a neighbour's share is steal.",
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
        "Load",
        "Processes that run or want to run, on average over 1, 5 and 15 minutes, beside the number of processors.",
        (
            Query("sum(node_load1{@host})", "1 m"),
            Query("sum(node_load5{@host})", "5 m"),
            Query("sum(node_load15{@host})", "15 m"),
            Query('count(node_cpu_seconds_total{@host, mode="idle"})', "processors"),
        ),
        unit="none",
        overrides=(
            *coloured({"1 m": "green", "5 m": "blue", "15 m": "purple"}),
            *dashed("processors", colour="red"),
        ),
        legend="names",
    ),
    timeseries(
        "Pressure",
        "Share of time in which at least one task waited for a processor, for memory or for a disk. Kernels without "
        "pressure information have no lines.",
        (
            Query("max(rate(node_pressure_cpu_waiting_seconds_total{@host}[@rate]))", "processor"),
            Query("max(rate(node_pressure_memory_waiting_seconds_total{@host}[@rate]))", "memory"),
            Query("max(rate(node_pressure_io_waiting_seconds_total{@host}[@rate]))", "disk"),
        ),
        unit="percentunit",
        soft_highest=0.1,
        overrides=coloured({"processor": "blue", "memory": "green", "disk": "orange"}),
        no_value="The kernel reports no pressure",
        legend="names",
    ),
)

MEMORY_ROW = (
    timeseries(
        "Memory by use",
        "Used by programs and the kernel, holding files (given back on demand), and free.",
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
    timeseries(
        "Memory used by host",
        "Memory that is not available to programs.",
        Query(MEMORY, "{{instance}}"),
        unit="percentunit",
        highest=1,
        limit=0.9,
        legend="names",
    ),
    timeseries(
        "Swapping",
        "Pages per second read from swap and written to it, and major page faults: memory that had to come from disk.",
        (
            Query("sum(rate(node_vmstat_pswpin{@host}[@rate]))", "swapped in"),
            Query("sum(rate(node_vmstat_pswpout{@host}[@rate]))", "swapped out"),
            Query("sum(rate(node_vmstat_pgmajfault{@host}[@rate]))", "major faults"),
        ),
        unit="cps",
        overrides=coloured({"swapped in": IN, "swapped out": OUT, "major faults": "orange"}),
        legend="names",
    ),
)

DISK = (
    timeseries(
        "Space used",
        "Used share of every file system that holds data.",
        Query(SPACE, "{{instance}} {{mountpoint}}"),
        unit="percentunit",
        highest=1,
        limit=0.9,
        legend="names",
    ),
    timeseries(
        "Throughput",
        "Bytes per second read from disks (up) and written to them (down).",
        (
            Query(f"sum(rate(node_disk_read_bytes_total{{@host, {DISKS}}}[@rate]))", "read"),
            Query(f"sum(rate(node_disk_written_bytes_total{{@host, {DISKS}}}[@rate]))", "written"),
        ),
        unit="Bps",
        lowest=None,
        overrides=(*coloured({"read": IN}), *below_zero("written", colour=OUT)),
        legend="names",
    ),
    timeseries(
        "Busy",
        "Share of time in which the disk had work to do. Fast disks bear more even at 100 %.",
        Query(
            f"sum by (instance, device) (rate(node_disk_io_time_seconds_total{{@host, {DISKS}}}[@rate]))",
            "{{instance}} {{device}}",
        ),
        unit="percentunit",
        soft_highest=0.1,
        legend="names",
    ),
    timeseries(
        "Latency",
        "Average time of a read and of a write, waiting included.",
        (
            Query(
                f"sum(rate(node_disk_read_time_seconds_total{{@host, {DISKS}}}[@rate]))"
                f" / (sum(rate(node_disk_reads_completed_total{{@host, {DISKS}}}[@rate])) > 0) or vector(0)",
                "read",
            ),
            Query(
                f"sum(rate(node_disk_write_time_seconds_total{{@host, {DISKS}}}[@rate]))"
                f" / (sum(rate(node_disk_writes_completed_total{{@host, {DISKS}}}[@rate])) > 0) or vector(0)",
                "write",
            ),
        ),
        unit="s",
        overrides=coloured({"read": IN, "write": OUT}),
        legend="names",
    ),
)

NETWORK = (
    timeseries(
        "Throughput by card",
        "Bytes per second received (up) and sent (down) by each network card.",
        (
            Query(
                f"sum by (instance, device) (rate(node_network_receive_bytes_total{{@host, {CARDS}}}[@rate]))",
                "{{instance}} {{device}} received",
            ),
            Query(
                f"sum by (instance, device) (rate(node_network_transmit_bytes_total{{@host, {CARDS}}}[@rate]))",
                "{{instance}} {{device}} sent",
            ),
        ),
        unit="Bps",
        lowest=None,
        overrides=(
            override_matching(".* received", color=fixed(IN)),
            override_matching(".* sent", color=fixed(OUT), custom_transform="negative-Y"),
        ),
        legend="names",
    ),
    timeseries(
        "Errors and drops",
        "Packets per second that were damaged or dropped, by network card.",
        Query(NETWORK_ERRORS, "{{instance}} {{device}}"),
        unit="pps",
        soft_highest=1,
        legend="names",
    ),
    timeseries(
        "TCP retransmissions",
        "Share of TCP segments that had to be sent again: the network loses some, or a peer is slow.",
        Query(
            "sum by (instance) (rate(node_netstat_Tcp_RetransSegs{@host}[@rate]))"
            " / (sum by (instance) (rate(node_netstat_Tcp_OutSegs{@host}[@rate])) > 0)"
            " or 0 * sum by (instance) (node_netstat_Tcp_OutSegs{@host})",
            "{{instance}}",
        ),
        unit="percentunit",
        limit=0.02,
        legend="names",
    ),
)

LIMITS = (
    timeseries(
        "Open files",
        "Open files of each host, as a share of what its kernel allows.",
        Query("node_filefd_allocated{@host} / node_filefd_maximum{@host}", "{{instance}}"),
        unit="percentunit",
        legend="names",
    ),
    timeseries(
        "Inodes used",
        "Used share of each file system's inodes: it can be full of files while space is left.",
        Query(
            f"1 - node_filesystem_files_free{{@host, {DATA}}} / (node_filesystem_files{{@host, {DATA}}} > 0)",
            "{{instance}} {{mountpoint}}",
        ),
        unit="percentunit",
        highest=1,
        legend="names",
    ),
    timeseries(
        "Clock offset",
        "How far the host's clock is from its time server's. Zero also where the kernel is not told.",
        Query("node_timex_offset_seconds{@host}", "{{instance}}"),
        unit="s",
        lowest=None,
        soft_highest=0.01,
        legend="names",
    ),
    timeseries(
        "TCP connections",
        "Established TCP connections of each host.",
        Query("node_netstat_Tcp_CurrEstab{@host}", "{{instance}}"),
        unit="none",
        legend="names",
    ),
    timeseries(
        "Context switches",
        "Switches between tasks per second.",
        Query("sum by (instance) (rate(node_context_switches_total{@host}[@rate]))", "{{instance}}"),
        unit="cps",
        legend="names",
    ),
    timeseries(
        "Blocked processes",
        "Processes that wait for a disk and can't be interrupted.",
        Query("node_procs_blocked{@host}", "{{instance}}"),
        unit="none",
        legend="names",
    ),
)

DASHBOARD = dashboard(
    "Host",
    "Utilisation, saturation and errors of processors, memory, disks and network.",
    variables=(NODE,),
    annotations=(REBOOTS,),
    rows=(
        Row("", STRIP),
        Row("Hosts", BY_HOST),
        Row("Processors", thirds(PROCESSOR, 7)),
        Row("Memory", thirds(MEMORY_ROW, 7)),
        Row("Disks", quarters(DISK, 7)),
        Row("Network", thirds(NETWORK, 7)),
        Row("Limits and kernel", thirds(LIMITS, 7), collapsed=True),
    ),
)
