"""The kinds of panels, each with one look for all dashboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .bounds import mappings as at_most
from .errors import DashboardError
from .model import COLUMNS, Json, Link, Panel, Query
from .promql import FAILING

Queries = Query | Sequence[Query]
Legend = Literal["below", "right", "names"]

NO_WORDS = "No data in this range"  # for panels that have data at all times; others say what has not happened

PER_MINUTE = "count:/min"  # what happens seldom is easier to read per minute than per second


def _tuple(queries: Queries) -> tuple[Query, ...]:
    return (queries,) if isinstance(queries, Query) else tuple(queries)


def full(panels: Sequence[Panel], height: int = 8) -> tuple[Panel, ...]:
    """One to a line. Raises DashboardError as `halves` does."""
    return _columns(panels, COLUMNS, height)


def halves(panels: Sequence[Panel], height: int = 8) -> tuple[Panel, ...]:
    """Two to a line. Raises DashboardError for a panel that sets another width: it would be lost."""
    return _columns(panels, 12, height)


def thirds(panels: Sequence[Panel], height: int = 8) -> tuple[Panel, ...]:
    """Three to a line. Raises DashboardError as `halves` does."""
    return _columns(panels, 8, height)


def quarters(panels: Sequence[Panel], height: int = 8) -> tuple[Panel, ...]:
    """Four to a line. Raises DashboardError as `halves` does."""
    return _columns(panels, 6, height)


def sixths(panels: Sequence[Panel], height: int = 3) -> tuple[Panel, ...]:
    """Six to a line: the strip on top. Raises DashboardError as `halves` does."""
    return _columns(panels, 4, height)


def _columns(panels: Sequence[Panel], width: int, height: int) -> tuple[Panel, ...]:
    for panel in panels:
        if panel.width not in (None, width):
            raise DashboardError(
                f"panel {panel.title!r} sets width={panel.width}, but its row gives every panel {width} of the 24 "
                "columns. Remove width= from the panel, or size each panel of the row with .sized(width, height)."
            )
    return tuple(panel.sized(width, height) for panel in panels)


@dataclass(frozen=True)
class Steps:
    """Thresholds: green, then orange from `warning` and red from `critical` on; without one, without its colour.

    With `critical` below `warning` lower values are the bad ones (a budget that runs out).
    """

    warning: float | None
    critical: float | None

    def to_json(self) -> Json:
        bounds = [(bound, colour) for bound, colour in ((self.warning, "orange"), (self.critical, "red"))]
        known = [(bound, colour) for bound, colour in bounds if bound is not None]
        if known != sorted(known, key=lambda step: step[0]):
            (high, _), (low, _) = known
            known, lowest = [(low, "orange"), (high, "green")], "red"
        else:
            lowest = "green"
        steps = [{"color": lowest, "value": None}, *({"color": colour, "value": bound} for bound, colour in known)]
        return {"mode": "absolute", "steps": steps}


_PLAIN: Json = {"mode": "absolute", "steps": [{"color": "text", "value": None}]}


def plain(colour: str) -> Json:
    """No thresholds: one colour for a number that is neither good nor bad."""
    return {"mode": "absolute", "steps": [{"color": colour, "value": None}]}


def override(name: str, /, **properties: Any) -> Json:
    """Properties for the series called `name`. `custom_x` sets the panel's own option x."""
    return {"matcher": {"id": "byName", "options": name}, "properties": _properties(properties)}


def override_matching(regex: str, /, **properties: Any) -> Json:
    return {"matcher": {"id": "byRegexp", "options": regex}, "properties": _properties(properties)}


def _properties(properties: Mapping[str, Any]) -> list[Json]:
    return [{"id": key.replace("custom_", "custom."), "value": value} for key, value in properties.items()]


def fixed(colour: str) -> Json:
    return {"mode": "fixed", "fixedColor": colour}


def coloured(colours: Mapping[str, str]) -> tuple[Json, ...]:
    """One fixed colour per series name."""
    return tuple(override(name, color=fixed(colour)) for name, colour in colours.items())


def dashed(*names: str, colour: str = "text", **properties: Any) -> tuple[Json, ...]:
    """A thin dashed line without area: a limit beside what is measured."""
    return tuple(
        override(
            name,
            color=fixed(colour),
            custom_lineStyle={"fill": "dash", "dash": [8, 6]},
            custom_fillOpacity=0,
            custom_lineWidth=1,
            custom_stacking={"mode": "none", "group": "A"},
            **properties,
        )
        for name in names
    )


def below_zero(*names: str, colour: str) -> tuple[Json, ...]:
    """Drawn downwards, named and counted as what it is: bytes sent under bytes received."""
    return tuple(override(name, color=fixed(colour), custom_transform="negative-Y") for name in names)


def stat(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str,
    steps: Steps | None = None,
    colour: str = "blue",
    decimals: int | None = None,
    width: int | None = None,
    height: int = 3,
    links: Sequence[Link] = (),
    no_value: str = "no data",
    mappings: Sequence[Json] = (),
    source: str = "",
    name: str = "",
    bounds: Sequence[float] = (),
) -> Panel:
    """The number of now; `steps` colour it, otherwise it is `colour`.

    An instant query: where there is nothing now, `no_value` stands there, and no number of some minutes ago. A
    percentile that `or_failing` completes says "failing" in red.
    source: what must be alive, such as `promql.SERVICE`: an average of 5 minutes outlives what it is of.
    name: a legend to show instead of the value, such as {{up}}/{{known}}, in the colour of the value.
    bounds: of the histogram that a percentile is of; it is shown as the bound of its bucket, such as "≤ 250 ms".
    """
    if f"vector({FAILING})" in expr:
        mappings = (*mappings, values({str(FAILING): ("failing", "red")}))
    if bounds:
        mappings = (*mappings, *at_most(bounds, first=len(mappings)))
    expr = f"({expr}) and on () {source}" if source else expr
    if not name:  # without a number Grafana would show the words in the colour of the lowest threshold
        expr = f"{expr} or vector(NaN)"
    nothing: Json = {"type": "special", "options": {"match": "null+nan", "result": {"text": no_value, "color": "text"}}}
    defaults: Json = {
        "color": {"mode": "thresholds"},
        "thresholds": steps.to_json() if steps else plain(colour),
        "noValue": no_value,
        "mappings": [*mappings, nothing],
    }
    _set(defaults, decimals=decimals)
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        queries=(Query(expr, name or "__auto", instant=True),),
        width=width,
        height=height,
        options={
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
            "showPercentChange": False,
            "textMode": "name" if name else "value",
            "text": {"valueSize": 26},  # one size for all numbers of a strip, whatever their length
            "wideLayout": False,
        },
        defaults=defaults,
        links=tuple(links),
    )


# How far an axis goes at least, so that an idle service's zero is not drawn under a hundred.
_SOFT_HIGHEST = {
    "none": 1,
    "short": 1,
    "reqps": 1,
    "percentunit": 0.01,
    "currencyUSD": 0.1,
    "Bps": 1000,
    PER_MINUTE: 1,
    "count:tps": 1,
    "count:q/s": 1,
    "count:tuples/s": 1,
    "count:tokens/s": 1,
}


def timeseries(
    title: str,
    description: str,
    query: Queries,
    *,
    unit: str,
    width: int | None = None,
    height: int = 8,
    stacked: bool = False,
    limit: float | None = None,
    lowest: float | None = 0,
    highest: float | None = None,
    soft_highest: float | None = None,
    soft_lowest: float | None = None,
    decimals: int | None = None,
    overrides: Sequence[Json] = (),
    links: Sequence[Link] = (),
    no_value: str = NO_WORDS,
    legend: Legend = "below",
    shades: str = "",
    sort_by: str = "Max",
    log: bool = False,
) -> Panel:
    """Lines over time.

    limit: an objective, drawn as a dashed red line.
    soft_highest, soft_lowest: how far the axis goes at least, so that next to nothing does not look like a lot.
    legend: a table "below" (mean, max, last) for one or two lines; one on the "right" (max, last) of a wide panel for
        many; or just the "names", in panels that are too small for a table that need not be scrolled.
    shades: all lines in shades of this colour, for what is bad in itself.
    log: a logarithmic axis, for what spans orders of magnitude.
    """
    legend_calcs = {"below": ["mean", "max", "lastNotNull"], "right": ["max", "lastNotNull"], "names": []}[legend]
    custom: Json = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1 if stacked else 2,
        "fillOpacity": 45 if stacked else 8,
        "gradientMode": "none" if stacked else "opacity",
        "showPoints": "never",
        "pointSize": 5,
        "spanNulls": False,
        "insertNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "axisPlacement": "auto",
        "axisLabel": "",
        "axisBorderShow": False,
        "axisColorMode": "text",
        "axisCenteredZero": False,
        "axisGridShow": True,
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
        "barAlignment": 0,
        "barWidthFactor": 0.8,
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "thresholdsStyle": {"mode": "dashed" if limit is not None else "off"},
    }
    if log:
        lowest = None  # there is no zero on it
    elif lowest is None and soft_lowest is None:
        soft_lowest = 0
    if soft_highest is None and highest is None:  # beside a soft end of the axis, a hard one would only be a cap
        soft_highest = _SOFT_HIGHEST.get(unit)
    if limit is not None and highest is None:  # the line is in the picture
        soft_highest = max(soft_highest or 0, 1.1 * limit)
    _set(custom, axisSoftMin=soft_lowest, axisSoftMax=soft_highest)
    thresholds: Json = {"mode": "absolute", "steps": [{"color": "transparent", "value": None}]}
    if limit is not None:
        thresholds["steps"].append({"color": "red", "value": limit})
    quiet = any(f'"{name}"' in q.expr for q in _tuple(query) for name in ("none", "no requests"))
    # What `or_named` adds is neither good nor bad, and leads nowhere.
    nothing = (override_matching("^(none ?|no requests)$", color=fixed("text"), links=[]),) if quiet else ()
    defaults: Json = {
        "color": {"mode": "shades", "fixedColor": shades} if shades else {"mode": "palette-classic"},
        "thresholds": thresholds,
        "noValue": no_value,
        "mappings": [],
    }
    _set(defaults, decimals=decimals, min=lowest, max=highest)
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        queries=_tuple(query),
        width=width,
        height=height,
        options={
            "legend": {
                "showLegend": True,
                "displayMode": "list" if legend == "names" else "table",
                "placement": "right" if legend == "right" else "bottom",
                "calcs": legend_calcs,
                **({} if legend == "names" else {"sortBy": sort_by, "sortDesc": True}),
            },
            "tooltip": {"mode": "multi", "sort": "desc", "hideZeros": False},
        },
        custom=custom,
        defaults=defaults,
        overrides=(*overrides, *nothing),
        links=tuple(links),
    )


def heatmap(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str,
    width: int | None = None,
    height: int = 8,
) -> Panel:
    """The distribution of what a histogram observed, per second; `expr` gives buckets by `le`."""
    return Panel(
        kind="heatmap",
        title=title,
        description=description,
        unit=unit,
        queries=(Query(expr, "{{le}}", format="heatmap"),),
        width=width,
        height=height,
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": "cps"},
            "color": {
                "mode": "scheme",
                "scheme": "Plasma",
                "steps": 64,
                "exponent": 0.5,
                "fill": "blue",
                "reverse": False,
                "scale": "exponential",
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": False},  # the tooltip has the numbers, and the buckets need the room
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        },
        custom={
            "hideFrom": {"legend": False, "tooltip": False, "viz": False},
            "scaleDistribution": {"type": "linear"},
        },
    )


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
        # The table's own words for "nothing" are meant for the table, not for an empty cell.
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
    queries: Queries,
    *,
    unit: str,
    columns: Sequence[Column],
    width: int | None = None,
    height: int = 8,
    sort_by: Sequence[tuple[str, bool]] = (),
    no_value: str = "-",
) -> Panel:
    """A table of instant queries joined on their labels; shows `columns` and nothing else.

    With several queries their values are the fields "Value #A", "Value #B" and so on, else "Value".
    sort_by: titles of columns, and whether the largest comes first.
    """
    several = not isinstance(queries, Query) and len(queries) > 1
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
        queries=_tuple(queries),
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
            "minWidth": 60,  # 150 if not said, and a table in a third of the width would scroll sideways
        },
        defaults={
            "color": {"mode": "thresholds"},
            "thresholds": _PLAIN,
            "noValue": no_value,
            "mappings": [],
        },
        overrides=tuple(c.override() for c in columns),
        transformations=(*(({"id": "merge", "options": {}},) if several else ()), organize),
    )


def state_timeline(
    title: str,
    description: str,
    query: Queries,
    *,
    unit: str,
    mappings: Sequence[Json],
    width: int | None = None,
    height: int = 6,
    links: Sequence[Link] = (),
    no_value: str = "Nothing",
) -> Panel:
    """Bands of a state over time. Colours come from value mappings, which only work without threshold colours."""
    return Panel(
        kind="state-timeline",
        title=title,
        description=description,
        unit=unit,
        queries=_tuple(query),
        width=width,
        height=height,
        options={
            "alignValue": "left",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
            "mergeValues": True,
            "perPage": 0,
            "rowHeight": 0.8,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        },
        custom={
            "fillOpacity": 75,
            "lineWidth": 0,
            "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        },
        defaults={
            "color": {"mode": "palette-classic"},
            "mappings": list(mappings),
            "thresholds": _PLAIN,
            "noValue": no_value,
        },
        links=tuple(links),
    )


def values(mapping: Mapping[str, tuple[str, str]]) -> Json:
    """A value mapping: value -> (text, colour)."""
    return {
        "type": "value",
        "options": {
            value: {"text": text, "color": colour, "index": i}
            for i, (value, (text, colour)) in enumerate(mapping.items())
        },
    }


def _set(target: Json, **entries: Any) -> None:
    target.update({key: value for key, value in entries.items() if value is not None})
