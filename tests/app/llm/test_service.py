"""Which provider the settings give, and the simulated one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from app.llm import LLMError, LLMService, Message, SimulatedBehaviour, SimulatedProvider, create_service
from app.llm.service import PRICES
from app.settings import Settings, SettingsError
from app.telemetry.llm import read_prices
from tests.telemetry.llm.measured import (
    FIRST_TOKEN,
    STREAMED,
    call,
    failed,
    finish,
    measured,
    missing,
    tokens,
)

PROMPT = [Message("user", "Hello there")]
KEY = SecretStr("a-key")
FAST = SimulatedBehaviour(first_token_seconds=0, tokens_per_second=1e6, output_tokens=40, spread=0)


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("given", "provider", "model"),
    [
        ({}, "simulated", "simulated-small"),
        ({"llm_model": "simulated-large"}, "simulated", "simulated-large"),
        ({"llm_model": "own", "llm_models": "simulated-small, further"}, "simulated", "own"),
        ({"openai_api_key": KEY}, "openai", "gpt-5-mini"),
        ({"openai_base_url": "http://127.0.0.1:1/v1", "llm_model": "qwen3"}, "openai", "qwen3"),
        ({"anthropic_api_key": KEY}, "anthropic", "claude-haiku-4-5"),
        ({"openai_api_key": KEY, "anthropic_api_key": KEY}, "openai", "gpt-5-mini"),
        ({"openai_api_key": KEY, "llm_provider": "simulated"}, "simulated", "simulated-small"),
        (
            {"openai_api_key": KEY, "anthropic_api_key": KEY, "llm_provider": "anthropic"},
            "anthropic",
            "claude-haiku-4-5",
        ),
    ],
)
async def test_provider_of_the_settings(given: dict[str, Any], provider: str, model: str) -> None:
    service = create_service(Settings(**given))
    assert (service.provider.name, service.default_model) == (provider, model)
    priced = {priced for name, priced in read_prices(PRICES) if name == provider}
    assert service.models == {model, *priced} | ({"further"} if "llm_models" in given else set())
    await service.aclose()
    labels = {"provider": provider, "model": model, "operation": "chat", "outcome": "error"}
    assert REGISTRY.get_sample_value("llm_requests_total", labels) is not None


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_missing_key(provider: Any) -> None:
    with pytest.raises(SettingsError, match=f"LLM_PROVIDER={provider} needs {provider.upper()}_API_KEY_FILE"):
        create_service(Settings(llm_provider=provider))


@pytest.mark.parametrize(
    ("provider", "environment"),
    [
        ("anthropic", {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "localhost,[::1]"}),
        ("anthropic", {"ALL_PROXY": "socks://proxy.example"}),
        ("openai", {"HTTPS_PROXY": "http://proxy.example:port"}),
        ("openai", {"OPENAI_BASE_URL": "http://llm.example:port/v1"}),
    ],
)
def test_addresses_that_the_http_client_refuses(
    provider: Any, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"^The LLM provider's client rejects .*See OPENAI_BASE_URL.* NO_PROXY$"):
        create_service(Settings(llm_provider=provider, openai_api_key=KEY, anthropic_api_key=KEY))


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_missing_sdk(sdk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, sdk, None)
    for module in ("app.llm.openai_compatible", "app.llm.anthropic_messages"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    given: dict[str, Any] = {f"{sdk}_api_key": KEY, "llm_provider": sdk}
    with pytest.raises(SettingsError, match=f"pip install {sdk}"):
        create_service(Settings(**given))


def test_wrong_price_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("app.llm.service.PRICES", tmp_path / "none.toml")
    with pytest.raises(SettingsError, match=r"price table .*none\.toml"):
        create_service(Settings())


def test_sdks_are_imported_only_when_used() -> None:
    code = (
        "import sys; from app.llm import create_service; from app.settings import Settings; create_service(Settings());"
        "print('openai' in sys.modules, 'anthropic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


# The simulated provider


async def answers(service: LLMService, calls: int) -> list[str]:
    outcomes = []
    for _ in range(calls):
        try:
            outcomes.append("".join([chunk.text async for chunk in service.stream(PROMPT)]))
        except LLMError as error:
            outcomes.append(error.kind)
    return outcomes


def simulated(model: str, seed: int = 0, **behaviour: Any) -> LLMService:
    values = {"first_token_seconds": 0, "tokens_per_second": 1e6, **behaviour}
    return LLMService(SimulatedProvider(SimulatedBehaviour(**values), seed), model)


async def test_simulated_whole_and_streamed(model: str) -> None:
    service = LLMService(SimulatedProvider(FAST), model)
    completion = await service.complete(PROMPT)
    assert completion.text.startswith("This is a simulated answer. ")
    assert (completion.provider, completion.model, completion.finish_reason) == ("simulated", model, "stop")
    assert completion.usage is not None
    # 11 characters of prompt, 4 to a token
    expected = call("success") | tokens(3, 40, 403e-6) | finish("stop")
    rate_limit = {"llm_rate_limit_remaining{resource=requests}": 59_999.0}
    assert measured("simulated", model) == pytest.approx(expected | rate_limit)

    await answers(service, 1)
    expected = call("success", calls=2) | STREAMED
    expected |= {name: 2 * value for name, value in (tokens(3, 40, 403e-6) | finish("stop")).items()} | {
        "llm_rate_limit_remaining{resource=requests}": 59_998.0
    }
    assert measured("simulated", model) == pytest.approx(expected)


async def test_simulated_repeats_itself(model: str) -> None:
    first = await answers(simulated(model, seed=1, error_share=0.3), 20)
    assert first == await answers(simulated(model, seed=1, error_share=0.3), 20)
    assert first != await answers(simulated(model, seed=2, error_share=0.3), 20)
    assert len(set(first)) > 10


async def test_simulated_errors(model: str) -> None:
    service = simulated(model, error_share=1, error_kind="overloaded", requests_per_minute=60_000)
    assert await answers(service, 1) == ["overloaded"]
    rate_limit = {"llm_rate_limit_remaining{resource=requests}": 59_999.0}
    assert measured("simulated", model) == call("error") | failed("overloaded") | missing("error") | rate_limit


async def test_simulated_error_share(model: str) -> None:
    outcomes = await answers(simulated(model, error_share=0.25), 400)
    assert 70 <= outcomes.count("server") <= 130


async def test_simulated_answers_that_break_off(model: str) -> None:
    service = simulated(model, incomplete_share=1, spread=0)
    assert await answers(service, 1) == ["incomplete"]
    left = {"llm_rate_limit_remaining{resource=requests}": 59_999.0}
    assert measured("simulated", model) == call("incomplete") | FIRST_TOKEN | missing("not_returned") | left
    with pytest.raises(LLMError, match="connection"):
        await service.complete(PROMPT)


async def test_simulated_rate_limit(model: str) -> None:
    service = simulated(model, requests_per_minute=3)
    outcomes = await answers(service, 5)
    assert outcomes[3:] == ["rate_limit", "rate_limit"]
    assert "rate_limit" not in outcomes[:3]
    numbers = measured("simulated", model)
    assert numbers["llm_errors_total{error_type=rate_limit}"] == 2
    assert "llm_rate_limit_remaining{resource=requests}" not in numbers  # 0


async def test_simulated_timeout(model: str) -> None:
    service = simulated(model, first_token_seconds=60, timeout_seconds=0.01)
    assert await answers(service, 1) == ["timeout"]


async def test_simulated_behaviour_changes_at_run_time(model: str) -> None:
    provider = SimulatedProvider(FAST)
    service = LLMService(provider, model)
    await answers(service, 1)
    provider.behaviour = SimulatedBehaviour(first_token_seconds=0, tokens_per_second=1e6, output_tokens=5000, spread=0)
    await answers(service, 1)
    assert measured("simulated", model)["llm_tokens_total{type=output}"] == 5040


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_token_seconds": -1},
        {"first_token_seconds": float("nan")},
        {"tokens_per_second": 0},
        {"spread": float("inf")},
        {"output_tokens": 0},
        {"error_share": 1.1},
        {"incomplete_share": -0.1},
        {"error_kind": "bad luck"},
        {"requests_per_minute": -1},
    ],
)
def test_simulated_behaviour_rejects_invalid_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulatedBehaviour(**wrong)


async def test_track_tokens_of_the_service(model: str) -> None:
    LLMService(SimulatedProvider(), model).track_tokens(100, 20, "simulated", model)
    assert measured("simulated", model) == pytest.approx(tokens(100, 20, 300e-6))
