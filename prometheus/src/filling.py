"""When HostDiskWillFill and HostInodesWillFill alert: one entry per window that is extrapolated (rules/host.yml).

Full within half an hour (inodes: an hour): pages, as there is hardly time to react. Full within three hours or a day: a
warning, to act on in working hours. The window of three hours takes precedence over that of one hour; the window of six
hours, which detects growth in steps, is used if neither fires.
"""

from __future__ import annotations

from dataclasses import dataclass

LEFT = {"30m": "half an hour", "1h": "an hour", "3h": "three hours", "1d": "a day"}
"""`Filling.ahead` in words, for descriptions."""


@dataclass(frozen=True)
class Filling:
    """Alert if the extrapolation of the last `window` has reached 0 within `ahead` for the time `hold`."""

    resource: str
    """Disk or Inodes."""
    window: str
    ahead: str
    severity: str
    hold: str
    below: float | None = None
    """Silent above this free ratio: emptier disks have space for temporary files of a burst."""
    falling: tuple[float, str] | None = None
    """(factor, time): it must still be filling: free space is below `factor` of its value `time` ago. A finished copy
    leaves a slope for the length of the window. Three quarters of what such a slope takes, seven eighths for pages."""
    fallen: float | None = None
    """Free space must be below this factor of the maximum of the last six hours."""
    unless: str = ""
    """Silent while the alert of one of these windows fires."""

    @property
    def series(self) -> str:
        """The recorded ratio of free space or inodes."""
        name = {"Disk": "avail", "Inodes": "files_free"}[self.resource]
        return f"instance_mountpoint:node_filesystem_{name}:ratio"

    @property
    def noun(self) -> str:
        return {"Disk": "space", "Inodes": "inodes"}[self.resource]

    @property
    def left(self) -> str:
        """`ahead` in words."""
        return LEFT[self.ahead]


# fmt: off
FILLINGS = (
    Filling("Disk", "10m", "30m", "critical", "4m", below=0.4, falling=(0.92, "3m")),
    Filling("Disk", "30m", "3h", "warning", "20m", below=0.5, falling=(0.96, "10m"), unless="1h"),
    Filling("Disk", "1h", "1d", "warning", "25m", below=0.75, falling=(0.9974, "5m"), fallen=0.82, unless="30m"),
    Filling("Disk", "6h", "1d", "warning", "70m", below=0.4, unless="30m|1h"),
    # A burst takes fewer inodes than space: they page without `falling`, and earlier.
    Filling("Inodes", "10m", "1h", "critical", "1m", below=0.65),
    Filling("Inodes", "30m", "3h", "warning", "20m", below=0.65, falling=(0.96, "10m"), unless="1h"),
    Filling("Inodes", "1h", "1d", "warning", "15m", falling=(0.9974, "5m"), fallen=0.94, unless="30m"),
    Filling("Inodes", "6h", "1d", "warning", "70m", below=0.4, unless="30m|1h"),
)
# fmt: on
