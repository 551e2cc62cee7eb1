"""Anthropic's messages API."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, cast

import anthropic

from app.telemetry.llm import Call, watch_http

from .retries import no_long_waits
from .text import MalformedAnswerError, text_of
from .types import Message

if TYPE_CHECKING:
    from anthropic.types import MessageParam

# At DEBUG the SDK logs whole requests, prompts included.
logging.getLogger("anthropic").setLevel(logging.INFO)

_MAX_TOKENS = 4096  # of an answer; the API insists on a limit


class AnthropicProvider:
    """Messages. Timeouts and retries are the SDK's own: each attempt may wait `timeout` seconds for a byte."""

    name = "anthropic"
    default_model = "claude-haiku-4-5"

    def __init__(
        self, api_key: str, base_url: str | None = None, *, timeout: float = 60.0, max_retries: int = 2
    ) -> None:
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            timeout=anthropic.Timeout(timeout, connect=min(timeout, 5.0)),
            max_retries=max_retries,
            http_client=watch_http(anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [no_long_waits]})),
        )

    async def complete(self, messages: Sequence[Message], model: str, call: Call) -> str:
        """The text of a whole answer."""
        message = call.record(
            await self._client.messages.create(
                model=model, max_tokens=_MAX_TOKENS, system=_system(messages), messages=_as_params(messages)
            )
        )
        try:
            return "".join(text_of(block.text) for block in message.content or () if block.type == "text")
        except (AttributeError, TypeError) as error:
            raise MalformedAnswerError(str(error)) from None

    async def stream(self, messages: Sequence[Message], model: str, call: Call) -> AsyncIterator[str]:
        """The text of an answer, piece by piece."""
        source = await self._client.messages.create(
            model=model, max_tokens=_MAX_TOKENS, system=_system(messages), messages=_as_params(messages), stream=True
        )
        async for event in call.stream(source):
            try:
                is_text = event.type == "content_block_delta" and event.delta.type == "text_delta"
                text = text_of(event.delta.text) if is_text else ""  # type: ignore[union-attr]
            except (AttributeError, TypeError) as error:
                raise MalformedAnswerError(str(error)) from None
            if text:
                yield text

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


def _system(messages: Sequence[Message]) -> str | anthropic.Omit:
    """Anthropic takes system messages apart from the conversation."""
    return "\n\n".join(message.content for message in messages if message.role == "system") or anthropic.omit


def _as_params(messages: Sequence[Message]) -> list[MessageParam]:
    return [
        cast("MessageParam", {"role": message.role, "content": message.content})
        for message in messages
        if message.role != "system"
    ]
