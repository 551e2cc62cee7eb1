"""GET /: name, version and links of the service."""

from __future__ import annotations

from fastapi import APIRouter, Request

from app import __version__
from app.api.schemas import Index, LLMInfo

router = APIRouter(tags=["index"])

SIMULATED_NOTE = "Answers come from a simulator: no LLM provider's key is configured, or LLM_PROVIDER=simulated."


@router.get("/")
async def index(request: Request) -> Index:
    provider: str = request.app.state.llm.provider.name
    simulated = provider == "simulated"
    return Index(
        service="sightline",
        version=__version__,
        llm=LLMInfo(provider=provider, simulated=simulated, note=SIMULATED_NOTE if simulated else None),
        links={
            "API description": "/openapi.json",
            "metrics": "/metrics",
            "alive": "/healthz",
            "ready": "/readyz",
        },
    )
