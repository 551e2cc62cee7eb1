"""The base class of faults, and the parts of the service they act on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from app.llm import LLMService

MAX_SECONDS = 1800

logger = logging.getLogger("app.faults")
Share = Annotated[float, Field(gt=0, le=1, description="Share of requests that are affected.")]


@dataclass(frozen=True)
class Service:
    """The parts of the service that faults act on."""

    engine: AsyncEngine
    llm: LLMService
    folder: Path
    """Where the switches are kept."""
    disk_folder: Path
    pool_limit: int
    """Maximum number of connections of the engine's pool."""


class Fault(BaseModel):
    """Base of all faults: duration, and what happens while the fault is on."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: ClassVar[str]
    one_worker: ClassVar[bool] = False
    """Whether a single worker runs the fault, which bounds its effect, or every worker does."""

    seconds: float = Field(60, gt=0, le=MAX_SECONDS, description="Duration; the fault ends by itself.")

    async def run(self, service: Service) -> None:
        """Runs while the fault is on, then is cancelled."""


def switch_file(folder: Path, name: str) -> Path:
    """The file that exists while a fault is switched on."""
    return folder / f"{name}.json"
