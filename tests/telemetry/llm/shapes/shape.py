"""What a shape is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.telemetry.llm import Usage

Body = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """Events of a stream, the same answer whole, and what they are."""

    name: str
    protocol: str
    events: Sequence[Any]
    usage: Usage | None
    finish: tuple[str, ...] = ("stop",)
    outcome: str = "success"
    error: str | None = None
    first_token: bool = True
    missing: str | None = None
    whole: Any = None
