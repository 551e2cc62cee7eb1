"""Processors, memory, disks and network of hosts: expressions, and the panels that Overview has, too."""

from __future__ import annotations

from functools import partial

from . import slo
from .common import IN, OUT
from .looks import Steps, fixed, override_matching
from .model import Link, Panel, Query
from .panels import stat, timeseries
from .promql import HOSTS

# File systems that hold data; those in memory or layered over another one fill up by design.
DATA = 'fstype!~"tmpfs|ramfs|devtmpfs|overlay|squashfs|iso9660|erofs|fuse.*|autofs|nsfs"'
DISKS = 'device!~"loop.*|ram.*|zram.*|sr.*|fd.*"'
CARDS = 'device!~"lo|veth.*|docker.*|br-.*|ifb.*"'
CPU = '1 - avg by (instance) (rate(node_cpu_seconds_total{@host, mode="idle"}[@rate]))'
CORES = 'count by (instance) (node_cpu_seconds_total{@host, mode="idle"})'
LOAD = f"max by (instance) (node_load1{{@host}}) / {CORES}"
MEMORY = "1 - node_memory_MemAvailable_bytes{@host} / node_memory_MemTotal_bytes{@host}"
# Read-only file systems are full by design.
_WRITABLE = f"and node_filesystem_readonly{{@host, {DATA}}} == 0"
SPACE = (
    f"(1 - node_filesystem_avail_bytes{{@host, {DATA}}} / (node_filesystem_size_bytes{{@host, {DATA}}} > 0)"
    f" {_WRITABLE})"
)
INODES = f"(1 - node_filesystem_files_free{{@host, {DATA}}} / (node_filesystem_files{{@host, {DATA}}} > 0) {_WRITABLE})"
FULLEST = f'{SPACE} or label_replace({INODES}, "of", "inodes", "", "")'
# A tile without a value while no host responds: a rate continues for the length of its window.
host_stat = partial(stat, source=HOSTS)
# Orange where attention is needed, red where an alert fires.
FREE_DISK, FREE_MEMORY = slo.threshold("disk_free_ratio"), slo.threshold("memory_available_ratio")
CPU_STEPS = slo.red_at("cpu_busy_ratio", 0.8)
MEMORY_STEPS = Steps(1 - 2 * FREE_MEMORY, 1 - FREE_MEMORY)
DISK_STEPS = Steps(1 - 4 * FREE_DISK, 1 - FREE_DISK)


def named(expr: str) -> str:
    """`expr` of each host with the host's name, which says more than the address of its exporter."""
    return f"({expr}) * on (instance) group_left (nodename) max by (instance, nodename) ({HOSTS})"


def disks(metric: str) -> str:
    """Rate of a counter of all disks of each host."""
    return f"sum by (instance) (rate(node_disk_{metric}_total{{@host, {DISKS}}}[@rate]))"


def each_host(title: str, description: str, expr: str, *links: Link) -> Panel:
    """A ratio, with one line per host."""
    return timeseries(
        title,
        description,
        Query(named(expr), "{{nodename}}"),
        unit="percentunit",
        highest=1,
        links=links,
    )


def fullest(title: str, description: str, expr: str, steps: Steps, *links: Link) -> Panel:
    """A ratio, of the host or disk with the highest value."""
    return host_stat(
        title,
        description,
        f"max({expr})",
        unit="percentunit",
        decimals=0,
        steps=steps,
        links=links,
    )


def cpu(*links: Link) -> Panel:
    description = "CPU utilization of the busiest host. A load generator on the same host is included."
    return fullest("CPU", description, CPU, CPU_STEPS, *links)


def memory(*links: Link) -> Panel:
    description = "Share of memory that is not available to programs, of the fullest host."
    return fullest("Memory", description, MEMORY, MEMORY_STEPS, *links)


def disk(*links: Link) -> Panel:
    description = "Used space of the fullest file system, or its used inodes if these are more."
    return fullest("Disk", description, FULLEST, DISK_STEPS, *links)


def cpu_by_host(*links: Link) -> Panel:
    return each_host("CPU by host", "CPU utilization of each host.", CPU, *links)


def memory_by_host(*links: Link) -> Panel:
    return each_host(
        "Memory by host", "Share of memory that is not available to programs, of each host.", MEMORY, *links
    )


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
        links=links,
    )


def network_throughput(*links: Link) -> Panel:
    kinds = {"received": "receive", "sent": "transmit"}
    return timeseries(
        "Network throughput",
        "Bytes per second that each network interface receives (up) and sends (down).",
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
        links=links,
    )
