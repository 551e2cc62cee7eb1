"""The layout of panels: one to six per line, in rows of 24 columns without gaps."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import DashboardError
from .model import Json, Panel, Row

COLUMNS = 24


def full(panels: Sequence[Panel], height: int = 8) -> tuple[Panel, ...]:
    """One to a line.

    Raises:
        DashboardError: a panel sets another width.
    """
    return _columns(panels, COLUMNS, height)


def halves(panels: Sequence[Panel], height: int = 8) -> tuple[Panel, ...]:
    """Two to a line.

    Raises:
        DashboardError: a panel sets another width, which would be lost.
    """
    return _columns(panels, 12, height)


def thirds(panels: Sequence[Panel], height: int = 8) -> tuple[Panel, ...]:
    """Three to a line.

    Raises:
        DashboardError: a panel sets another width.
    """
    return _columns(panels, 8, height)


def quarters(panels: Sequence[Panel], height: int = 8) -> tuple[Panel, ...]:
    """Four to a line.

    Raises:
        DashboardError: a panel sets another width.
    """
    return _columns(panels, 6, height)


def sixths(panels: Sequence[Panel], height: int = 3) -> tuple[Panel, ...]:
    """Six to a line: the strip on top.

    Raises:
        DashboardError: a panel sets another width.
    """
    return _columns(panels, 4, height)


def _columns(panels: Sequence[Panel], width: int, height: int) -> tuple[Panel, ...]:
    for panel in panels:
        if panel.width not in (None, width):
            raise DashboardError(
                f"panel {panel.title!r} sets width={panel.width}, but its row gives every panel {width} of the 24 "
                "columns. Remove width= from the panel, or size each panel of the row with .sized(width, height)."
            )
    return tuple(panel.sized(width, height) for panel in panels)


def place(rows: Sequence[Row], uid: str) -> list[Json]:
    """Number the panels of the dashboard `uid` and give each its place.

    Raises:
        DashboardError: the panels leave a gap.
    """
    placed: list[Json] = []
    next_id = 1
    y = 0
    for row in rows:
        header: Json | None = None
        if row.title:
            header = {
                "id": next_id,
                "type": "row",
                "title": row.title,
                "collapsed": row.collapsed,
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
                "panels": [],
            }
            placed.append(header)
            next_id += 1
            y += 1
        inside: list[Json] = []
        x, line_height, top = 0, 0, y
        for panel in row.panels:
            width = panel.width
            if width is None:
                raise DashboardError(f"{uid}: panel {panel.title!r} has no width: put it into thirds() or .sized(8)")
            if x and panel.height != line_height:
                raise DashboardError(f"{uid}: panel {panel.title!r} is not as high as the panels beside it")
            if x + width > COLUMNS:
                raise DashboardError(f"{uid}: panel {panel.title!r} ends at column {x + width} of {COLUMNS}")
            line_height = panel.height
            inside.append(panel.to_json(next_id, x, top))
            next_id += 1
            x += width
            if x == COLUMNS:
                x, top = 0, top + line_height
        if x:
            raise DashboardError(f"{uid}: the last line of row {row.title!r} ends at column {x} of {COLUMNS}")
        if header is not None and row.collapsed:
            header["panels"] = inside  # a collapsed row keeps its panels and takes no room
        else:
            placed.extend(inside)
            y = top
    return placed
