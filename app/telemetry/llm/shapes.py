# SPDX-License-Identifier: Apache-2.0
"""Reading fields of SDK objects and dicts in the same way; an empty value counts as absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Attributes(dict[str, Any]):
    """The fields of an object that has them in slots or properties."""

    def __init__(self, thing: Any) -> None:
        super().__init__()
        self._thing = thing

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self._thing, name, default)


def fields(thing: Any) -> Any:
    """The fields of an object or a mapping, as a mapping; of a Pydantic model including extra fields."""
    if isinstance(thing, dict):
        return thing
    known = getattr(thing, "__dict__", None)
    if known is None:
        return {} if thing is None or isinstance(thing, str | int | float | list | tuple) else Attributes(thing)
    extra = getattr(thing, "__pydantic_extra__", None)
    return {**known, **extra} if extra else known


def get(thing: Any, name: str) -> Any:
    """A field of an object or a mapping; None if it is missing or empty: "", {}, [] or null."""
    value = thing.get(name) if isinstance(thing, dict | Mapping) else getattr(thing, name, None)
    return None if value is None or value in ("", {}, []) else value


def items(thing: Any) -> list[Any] | tuple[Any, ...]:
    """The list or tuple itself; an empty one for anything else."""
    return thing if isinstance(thing, list | tuple) else ()
