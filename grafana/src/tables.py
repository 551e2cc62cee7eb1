"""Tables: columns, and the look of their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .bounds import mappings as at_most
from .looks import PLAIN, Steps, override
from .model import Json, Link, Panel, Query


@dataclass(frozen=True)
class Column:
    """A column of a table: the query's field `source`, called `title`."""

    source: str
    title: str
    unit: str = ""
    width: int | None = None
    steps: Steps | None = None
    bar: bool = False
    decimals: int | None = None
    links: tuple[Link, ...] = ()
    mappings: tuple[Json, ...] = ()
    bounds: Sequence[float] = ()  # as of `stat`

    def override(self) -> Json:
        # The table's text for "no data" is for an empty table, not for an empty cell.
        properties: dict[str, Any] = {"unit": self.unit or "string", "noValue": "-"}
        if self.decimals is not None:
            properties["decimals"] = self.decimals
        if self.width:
            properties["custom_width"] = self.width
        if self.links:
            properties["links"] = [link.to_json() for link in self.links]
        if self.mappings:
            properties["mappings"] = list(self.mappings)
            properties["custom_cellOptions"] = {"type": "color-text"}
        if self.bounds:
            properties["mappings"] = at_most(self.bounds)
        if self.steps:
            properties["thresholds"] = self.steps.to_json()
            properties["custom_cellOptions"] = {"type": "color-text"}
        if self.bar:
            properties["color"] = {"mode": "continuous-BlPu"}
            properties["fieldMinMax"] = True
            properties["min"] = 0
            properties["custom_cellOptions"] = {"type": "gauge", "mode": "gradient", "valueDisplayMode": "text"}
        return override(self.title, **properties)


def table(
    title: str,
    description: str,
    exprs: str | Sequence[str],
    *,
    unit: str,
    columns: Sequence[Column],
    width: int | None = None,
    height: int = 8,
    sort_by: Sequence[tuple[str, bool]] = (),
    no_value: str = "-",
    source: str = "",
) -> Panel:
    """A table of the values of expressions at the end of the time range, joined on labels; shows only `columns`.

    With several expressions their values are the fields "Value #A", "Value #B" and so on, else "Value".
    sort_by: titles of columns, and whether the largest comes first. source: what must be alive, as of `stat`.
    """
    exprs = (exprs,) if isinstance(exprs, str) else tuple(exprs)
    exprs = tuple(f"({expr}) and on () {source}" for expr in exprs) if source else exprs
    names = [c.source for c in columns]
    organize: Json = {
        "id": "organize",
        "options": {
            "excludeByName": {},
            "indexByName": {name: i for i, name in enumerate(names)},
            "renameByName": {c.source: c.title for c in columns},
            "includeByName": dict.fromkeys(names, True),
        },
    }
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit=unit,
        queries=tuple(Query(expr, instant=True, format="table") for expr in exprs),
        width=width,
        height=height,
        options={
            "cellHeight": "sm",
            "showHeader": True,
            "sortBy": [{"displayName": name, "desc": descending} for name, descending in sort_by],
        },
        custom={
            "align": "auto",
            "cellOptions": {"type": "auto"},
            "inspect": False,
            "filterable": False,
            "minWidth": 60,  # the default, 150, would make a table in a third of the width scroll sideways
        },
        defaults={
            "color": {"mode": "thresholds"},
            "thresholds": PLAIN,
            "noValue": no_value,
            "mappings": [],
        },
        overrides=tuple(c.override() for c in columns),
        transformations=(*(({"id": "merge", "options": {}},) if len(exprs) > 1 else ()), organize),
    )
