"""The LLM service: one small interface over OpenAI-compatible servers, Anthropic and a simulated provider.

service = create_service(settings)
completion = await service.complete([Message("user", "Hello")])
async for chunk in service.stream([Message("user", "Hello")]):
    ...
await service.aclose()
"""

from .service import LLMService, create_service
from .simulated import SimulatedBehaviour, SimulatedProvider
from .types import Chunk, Completion, LLMError, Message, Provider, Usage

__all__ = [
    "Chunk",
    "Completion",
    "LLMError",
    "LLMService",
    "Message",
    "Provider",
    "SimulatedBehaviour",
    "SimulatedProvider",
    "Usage",
    "create_service",
]
