"""The kinds of panels, each with one look for all dashboards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .bounds import mappings as at_most
from .looks import PER_MINUTE, PLAIN, Steps, fixed, no_answer, override_matching, plain, set_known, values
from .model import Json, Link, Panel, Query
from .promql import FAILING, NOTHING, QUIET, WAITING

Queries = Query | Sequence[Query]
Legend = Literal["right", "names"]

NO_DATA = "no data"  # in a tile
NO_WORDS = "No data in this range"  # for panels that have data at all times; others say what has not happened


def _tuple(queries: Queries) -> tuple[Query, ...]:
    return (queries,) if isinstance(queries, Query) else tuple(queries)


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
    no_value: str = NO_DATA,
    mappings: Sequence[Json] = (),
    source: str = "",
    name: str = "",
    with_value: bool = False,
    bounds: Sequence[float] = (),
) -> Panel:
    """The current value, coloured by `steps`, otherwise in `colour`.

    An instant query: if there is no value now, the tile shows `no_value`, not a value from minutes ago. Values that use
    `promql.Outcomes` may also show "failing" in red, or "waiting" in orange.
    source: what must be alive, such as `promql.SERVICE`, as an average of 5 minutes outlasts its source. While it is
        not alive, the tile shows "no data" instead of `no_value`.
    name: a label to show instead of the value, in the colour of the value. with_value: small, below the value.
    bounds: of a percentile's histogram; the percentile is shown as the bound of its bucket, such as "≤ 250 ms".
    """
    words = {str(NOTHING): (NO_DATA if source else no_value, "text")}
    if source and no_value != NO_DATA:
        words[str(QUIET)] = (no_value, "text")
    for value, word, colour_of_word in ((FAILING, "failing", "red"), (WAITING, "waiting", "orange")):
        if f"vector({value})" in expr:
            words[str(value)] = (word, colour_of_word)
    # Without a result, for example while Prometheus is down, the text would be green, the colour of the lowest
    # threshold.
    mappings = (values(words), no_answer("no answer", index=len(words)), *mappings)
    if bounds:
        mappings = (*mappings, *at_most(bounds, first=len(words) + 1))

    # Without a value Grafana would show the text in the colour of the lowest threshold.
    def instead(value: int) -> str:
        named = "-" if with_value else words[str(value)][0]
        return f'on () label_replace(vector({value}), "{name}", "{named}", "", "")' if name else f"vector({value})"

    if str(QUIET) in words:
        expr = f"{expr} or {instead(QUIET)}"
    expr = f"({expr}) and on () {source}" if source else expr
    expr = f"{expr} or {instead(NOTHING)}"
    defaults: Json = {
        "color": {"mode": "thresholds"},
        "thresholds": steps.to_json() if steps else plain(colour),
        "noValue": no_value,
        "mappings": list(mappings),
    }
    set_known(defaults, decimals=decimals)
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        queries=(Query(expr, f"{{{{{name}}}}}" if name else "__auto", instant=True),),
        width=width,
        height=height,
        options={
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "center" if with_value else "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
            "showPercentChange": False,
            "textMode": ("value_and_name" if with_value else "name") if name else "value",
            # One size for all numbers of a strip, whatever their length.
            "text": {"valueSize": 26, **({"titleSize": 13} if with_value else {})},
            "wideLayout": False,
        },
        defaults=defaults,
        links=tuple(links),
    )


# The minimum extent of an axis, so that an idle service's 0 is not drawn on an axis that ends at 100.
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
    legend: Legend = "names",
    shades: str = "",
    log: bool = False,
) -> Panel:
    """Lines over time.

    limit: an objective, drawn as a dashed red line.
    soft_highest, soft_lowest: how far the axis goes at least, so that next to nothing does not look like a lot.
    legend: "names" below the lines; or a table of names and maxima on the "right" of a wide panel, largest first, for
        many lines, of which that is where to look. A second number would leave the lines no room at 1280 pixels.
    shades: all lines in shades of this colour, for what is bad in itself.
    log: a logarithmic axis, for what spans orders of magnitude.
    """
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
        lowest = None  # it has no zero
    elif lowest is None and soft_lowest is None:
        soft_lowest = 0
    if soft_highest is None and highest is None:  # beside a soft end of the axis, a hard one would only be a cap
        soft_highest = _SOFT_HIGHEST.get(unit)
    if limit is not None and highest is None:  # keep the line visible
        soft_highest = max(soft_highest or 0, 1.1 * limit)
    set_known(custom, axisSoftMin=soft_lowest, axisSoftMax=soft_highest)
    thresholds: Json = {"mode": "absolute", "steps": [{"color": "transparent", "value": None}]}
    if limit is not None:
        thresholds["steps"].append({"color": "red", "value": limit})
    quiet = any(f'"{name}"' in q.expr for q in _tuple(query) for name in ("none", "no requests"))
    # The series that `or_named` adds has a neutral colour and no link.
    nothing = (override_matching("^(none ?|no requests)$", color=fixed("text"), links=[]),) if quiet else ()
    defaults: Json = {
        "color": {"mode": "shades", "fixedColor": shades} if shades else {"mode": "palette-classic"},
        "thresholds": thresholds,
        "noValue": no_value,
        "mappings": [],
    }
    set_known(defaults, decimals=decimals, min=lowest, max=highest)
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
                "calcs": [] if legend == "names" else ["max"],
                **({} if legend == "names" else {"sortBy": "Max", "sortDesc": True}),
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
) -> Panel:
    """Bands of a state over time. Colours come from value mappings, which only work without threshold colours.

    The query must always have an answer: without one Grafana shows a complaint about missing time fields.
    """
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
            "thresholds": PLAIN,
        },
        links=tuple(links),
    )
