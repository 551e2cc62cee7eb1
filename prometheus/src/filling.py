"""When HostDiskWillFill and HostInodesWillFill alert: a line for each window whose slope is followed (rules/host.yml).

Within half an hour, for inodes an hour: pages, as hardly anybody could be quicker. Within three hours or a day: time
to act in working hours; of three hours and of the last hour's line the first speaks for both, and six hours, which see
what fills in steps, speak when neither does.
"""

from __future__ import annotations

from dataclasses import dataclass

LEFT = {"30m": "half an hour", "1h": "an hour", "3h": "three hours", "1d": "a day"}
"""How a description names `Filling.ahead`."""


@dataclass(frozen=True)
class Filling:
    """Alert where the line of the last `window` reaches 0 within `ahead`, for the time `hold`."""

    resource: str
    """Disk or Inodes."""
    window: str
    ahead: str
    severity: str
    hold: str
    below: float | None = None
    """The free share above which it is silent: emptier disks have room for what a burst writes and deletes again."""
    falling: tuple[float, str] | None = None
    """It still goes on: less than this part of what was free this long ago, as a copy that has ended leaves a slope
    behind, for as long as the window is. Three quarters of what such a line takes, seven eighths where it pages."""
    fallen: float | None = None
    """Less than this part of the most that was free in the six hours before."""
    unless: str = ""
    """Silent while the alert of one of these windows fires."""

    @property
    def series(self) -> str:
        """The recorded share that is free."""
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
