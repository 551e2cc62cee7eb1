"""The service that the rest of the application calls: picks the provider, measures every call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path

from app.settings import Settings, SettingsError
from app.telemetry import llm as telemetry

from .simulated import MODELS as SIMULATED_MODELS
from .simulated import SimulatedProvider
from .types import Chunk, Completion, LLMError, Message, Provider

logger = logging.getLogger(__name__)

# Seconds for a complete answer, attempts and waits included: with a read timeout alone, a provider could send one byte
# per minute.
ANSWER_TIMEOUT = 300.0
PRICES = Path(__file__).with_name("prices.toml")


class LLMService:
    """Answers of a language model, with metrics. `provider` may be replaced; calls in progress finish with the old one.

    `models` are those that clients may request; the default one is always among them.
    """

    def __init__(self, provider: Provider, default_model: str | None = None, models: Iterable[str] = ()) -> None:
        self.provider = provider
        self.default_model = default_model or provider.default_model
        self.models = frozenset({self.default_model, *models})

    async def complete(self, messages: Sequence[Message], model: str | None = None) -> Completion:
        """The whole answer.

        Raises:
            LLMError: the provider fails.
        """
        provider, model = self.provider, model or self.default_model
        try:
            async with (
                telemetry.track_call(provider.name, model, prompt=_prompt(messages)) as call,
                asyncio.timeout(ANSWER_TIMEOUT),
            ):
                text = await provider.complete(messages, model, call)
        except Exception as error:
            raise _failed(provider.name, error) from None
        _check(call)
        finish_reason = call.finish_reasons[0] if call.finish_reasons else None
        return Completion(text, model, provider.name, call.usage, finish_reason)

    async def stream(self, messages: Sequence[Message], model: str | None = None) -> AsyncGenerator[Chunk]:
        """The answer piece by piece. Closing the generator early also closes the provider's request.

        Raises:
            LLMError: the provider fails, even during the answer; of kind `incomplete` if the answer is cut off.
        """
        provider, model = self.provider, model or self.default_model
        try:
            async with (
                telemetry.track_call(provider.name, model, prompt=_prompt(messages)) as call,
                aclosing(provider.stream(messages, model, call)) as texts,  # type: ignore[type-var]
            ):
                async for text in texts:
                    yield Chunk(text)
        except Exception as error:
            raise _failed(provider.name, error) from None
        _check(call)
        yield Chunk("", call.usage, (call.finish_reasons or ["other"])[0])

    def track_tokens(self, input_tokens: int, output_tokens: int, provider: str, model: str) -> None:
        """Count tokens of a call that was made elsewhere; `complete` and `stream` count their own."""
        telemetry.track_tokens(input_tokens, output_tokens, provider, model)

    async def aclose(self) -> None:
        """Close the provider's connections."""
        await self.provider.aclose()


def create_service(settings: Settings) -> LLMService:
    """The service for these settings. LLM_PROVIDER=auto takes OpenAI, then Anthropic, by what is set, else simulates.

    Raises:
        SettingsError: a key or an SDK is missing, an address is invalid, or the price table is wrong.
    """
    try:
        provider = _create_provider(settings)
    except (SettingsError, TypeError, AttributeError, NameError):  # the last three are bugs, not configuration errors
        raise
    except Exception as error:  # of the SDK's HTTP client, which raises several types for invalid URLs
        raise SettingsError(
            f"The LLM provider's client rejects its base URL or the URL of a proxy ({type(error).__name__}: {error})."
            " See OPENAI_BASE_URL, ANTHROPIC_BASE_URL, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
        ) from None
    try:
        prices = telemetry.read_prices(PRICES)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    priced = [model for name, model in prices if name == provider.name]
    listed = [model.strip() for model in settings.llm_models.split(",") if model.strip()]
    if isinstance(provider, SimulatedProvider):
        listed += SIMULATED_MODELS
    service = LLMService(provider, settings.llm_model, (*priced, *listed))
    telemetry.configure({provider.name: {service.default_model, *listed}}, prices)
    return service


def _create_provider(settings: Settings) -> Provider:
    choice: str = settings.llm_provider
    if choice == "auto":
        if settings.openai_api_key or settings.openai_base_url:
            choice = "openai"
        elif settings.anthropic_api_key:
            choice = "anthropic"
    if choice == "openai":
        return _create_openai(settings)
    if choice == "anthropic":
        return _create_anthropic(settings)
    return SimulatedProvider()


def _create_openai(settings: Settings) -> Provider:
    if not settings.openai_api_key and not settings.openai_base_url:
        raise SettingsError("LLM_PROVIDER=openai needs OPENAI_API_KEY_FILE, or OPENAI_BASE_URL for your own server")
    try:
        from .openai_compatible import OpenAIProvider
    except ImportError:
        raise SettingsError("LLM_PROVIDER=openai needs its SDK: pip install openai") from None
    # A self-hosted server, such as Ollama or vLLM, accepts any key, but the SDK requires one.
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else "none"
    return OpenAIProvider(key, settings.openai_base_url)


def _create_anthropic(settings: Settings) -> Provider:
    if not settings.anthropic_api_key:
        raise SettingsError("LLM_PROVIDER=anthropic needs ANTHROPIC_API_KEY_FILE")
    try:
        from .anthropic_messages import AnthropicProvider
    except ImportError:
        raise SettingsError("LLM_PROVIDER=anthropic needs its SDK: pip install anthropic") from None
    return AnthropicProvider(settings.anthropic_api_key.get_secret_value(), settings.anthropic_base_url)


def _prompt(messages: Sequence[Message]) -> str:
    """The user's last message: earlier ones were measured when they were new."""
    return next((message.content for message in reversed(messages) if message.role == "user"), "")


def _check(call: telemetry.Call) -> None:
    """Check that the call succeeded: providers also report errors inside answers, and streams may end silently.

    Raises:
        LLMError: it did not.
    """
    if call.outcome != "success":
        kind = call.error or "incomplete"
        logger.warning("LLM call to %s failed: %s", call.provider, kind)
        raise LLMError(kind)


def _failed(provider: str, error: Exception) -> LLMError:
    kind = telemetry.error_type(error)
    logger.warning("LLM call to %s failed: %s (%s)", provider, kind, type(error).__name__)
    return LLMError(kind)
