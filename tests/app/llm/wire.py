"""The service with an official SDK and the fake provider behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.llm import LLMService, Message
from tests.telemetry.llm.fake_provider import FakeProvider
from tests.telemetry.llm.sdks import anthropic_messages, openai_compatible

PROMPT = [Message("system", "Be brief."), Message("user", "Hello there")]
KEY = "sk-secret-key"


@asynccontextmanager
async def service(fake: FakeProvider, provider: str, model: str, **settings: Any) -> AsyncIterator[LLMService]:
    if provider == "openai":
        made: Any = openai_compatible.OpenAIProvider(KEY, fake.openai_url, **settings)
    else:
        made = anthropic_messages.AnthropicProvider(KEY, fake.anthropic_url, **settings)
    llm = LLMService(made, model)
    try:
        yield llm
    finally:
        await llm.aclose()
