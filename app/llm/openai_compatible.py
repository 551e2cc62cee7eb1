"""OpenAI, and every server with its API: vLLM, Ollama, LiteLLM and others, by `base_url`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, cast

import openai

from app.telemetry.llm import Call, watch_http

from .retries import no_long_waits
from .text import MalformedAnswerError, text_of
from .types import Message

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

# At DEBUG the SDK logs whole requests, prompts included.
logging.getLogger("openai").setLevel(logging.INFO)


class OpenAIProvider:
    """Chat completions. Timeouts and retries are the SDK's own: each attempt may wait `timeout` seconds for a byte."""

    name = "openai"
    default_model = "gpt-5-mini"

    def __init__(
        self, api_key: str, base_url: str | None = None, *, timeout: float = 60.0, max_retries: int = 2
    ) -> None:
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            timeout=openai.Timeout(timeout, connect=min(timeout, 5.0)),
            max_retries=max_retries,
            http_client=watch_http(openai.DefaultAsyncHttpxClient(event_hooks={"response": [no_long_waits]})),
        )

    async def complete(self, messages: Sequence[Message], model: str, call: Call) -> str:
        """The text of a whole answer."""
        completion = call.record(await self._client.chat.completions.create(model=model, messages=_as_params(messages)))
        try:
            return text_of(completion.choices[0].message.content if completion.choices else None)
        except (AttributeError, TypeError, LookupError) as error:
            raise MalformedAnswerError(str(error)) from None

    async def stream(self, messages: Sequence[Message], model: str, call: Call) -> AsyncIterator[str]:
        """The text of an answer, piece by piece."""
        source = await self._client.chat.completions.create(
            model=model, messages=_as_params(messages), stream=True, stream_options={"include_usage": True}
        )
        async for chunk in call.stream(source):
            try:
                text = text_of(chunk.choices[0].delta.content if chunk.choices else None)
            except (AttributeError, TypeError, LookupError) as error:
                raise MalformedAnswerError(str(error)) from None
            if text:
                yield text

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


def _as_params(messages: Sequence[Message]) -> list[ChatCompletionMessageParam]:
    return [
        cast("ChatCompletionMessageParam", {"role": message.role, "content": message.content}) for message in messages
    ]
