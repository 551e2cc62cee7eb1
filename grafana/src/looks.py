"""Units, colours, thresholds and overrides: the look of all kinds of panels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .model import Json

PER_MINUTE = "count:/min"  # rates of rare events are easier to read per minute than per second


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


PLAIN: Json = {"mode": "absolute", "steps": [{"color": "text", "value": None}]}


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


def values(mapping: Mapping[str, tuple[str, str]]) -> Json:
    """A value mapping: value -> (text, colour)."""
    return {
        "type": "value",
        "options": {
            value: {"text": text, "color": colour, "index": i}
            for i, (value, (text, colour)) in enumerate(mapping.items())
        },
    }


UP_OR_DOWN = values({"0": ("down", "red"), "1": ("up", "green")})


def no_answer(text: str, index: int) -> Json:
    """The mapping of null, the value of a query without a result: `text`, in a neutral colour."""
    return {"type": "special", "options": {"match": "null", "result": {"text": text, "color": "text", "index": index}}}


def set_known(target: Json, **entries: Any) -> None:
    target.update({key: value for key, value in entries.items() if value is not None})
