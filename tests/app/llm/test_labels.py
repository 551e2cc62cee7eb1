"""What neither a label nor a log has, whatever is asked and answered: unheard-of models, prompts, answers and keys."""

from __future__ import annotations

import pytest

from app.llm import LLMError
from tests.app.llm.wire import KEY, PROMPT, service
from tests.telemetry.llm.fake_provider import (
    FakeProvider,
    anthropic_error,
    anthropic_whole,
    openai_error,
    openai_whole,
)
from tests.telemetry.llm.measured import measured


async def test_models_outside_the_list_are_other(fake: FakeProvider, model: str) -> None:
    """A thousand models asked for make no series of their own; without a price they count as unpriced."""
    before = measured("openai", "other").get("llm_unpriced_requests_total", 0)
    fake.replies = [openai_whole()]
    async with service(fake, "openai", model) as llm:
        for number in range(20):
            await llm.complete(PROMPT, f"{model}-unheard-of-{number}")
    after = measured("openai", "other")
    assert after["llm_unpriced_requests_total"] == before + 20
    assert "llm_cost_usd_total" not in after
    assert measured("openai", model) == {}
    assert measured("openai", f"{model}-unheard-of-1") == {}
    assert [exchange.body["model"] for exchange in fake.exchanges] == [f"{model}-unheard-of-{n}" for n in range(20)]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_nothing_private_leaves(
    provider: str, fake: FakeProvider, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Prompt, answer and key show in no log, error or label, even at DEBUG and when the provider echoes them."""
    caplog.set_level("DEBUG")
    echo = f"Incorrect API key provided: {KEY}; you said Hello there"
    error = openai_error(401, "invalid_api_key", echo) if provider == "openai" else anthropic_error(401, "x", echo)
    whole = openai_whole() if provider == "openai" else anthropic_whole()
    fake.replies = [error, whole]
    async with service(fake, provider, model) as llm:
        with pytest.raises(LLMError) as failure:
            await llm.complete(PROMPT)
        await llm.complete(PROMPT)
    seen = caplog.text + str(failure.value) + repr(measured(provider, model))
    assert caplog.records
    for private in (KEY, "Hello there", "Be brief", "Hello to you"):
        assert private not in seen
