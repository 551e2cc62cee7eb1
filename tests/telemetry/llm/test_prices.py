"""Tokens and their price, and tables of prices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.llm.service import PRICES
from app.telemetry import llm as telemetry
from app.telemetry.llm import Price, Usage
from tests.telemetry.llm.measured import measured, tokens


def test_track_tokens(model: str) -> None:
    telemetry.track_tokens(100, 20, "openai", model)
    expected = tokens(100, 20, (100 * 1 + 20 * 10) / 1e6)
    assert measured("openai", model) == pytest.approx(expected)
    telemetry.track_tokens(100, 20, "anthropic", model, cache_read=50, cache_write=10, reasoning=5)
    expected = tokens(100, 20, (40 * 1 + 50 * 0.1 + 10 * 1.25 + 20 * 10) / 1e6, 50, 10, 5)
    assert measured("anthropic", model) == pytest.approx(expected)
    telemetry.track_tokens(10, 5, "simulated", model, cache_read=10, reasoning=5)  # a part may be the whole
    assert measured("simulated", model)["llm_token_details_total{detail=output_reasoning}"] == 5


@pytest.mark.parametrize(
    "wrong", [{"input_tokens": -1}, {"output_tokens": -1}, {"cache_read": 11}, {"reasoning": 11}, {"cache_write": -1}]
)
def test_track_tokens_refuses_nonsense(wrong: dict[str, int], model: str) -> None:
    arguments: dict[str, Any] = {"input_tokens": 10, "output_tokens": 10, "provider": "openai", "model": model} | wrong
    with pytest.raises(ValueError, match="tokens"):
        telemetry.track_tokens(**arguments)
    assert measured("openai", model) == {}


def test_prices_that_are_left_out() -> None:
    usage = Usage(input_tokens=1000, output_tokens=0, cache_read=100, cache_write=200, cache_write_1h=50)
    assert Price(2, 0).cost(usage) == pytest.approx(1000 * 2 / 1e6)
    assert Price(2, 0, cache_read=1).cost(usage) == pytest.approx((900 * 2 + 100) / 1e6)
    assert Price(2, 0, cache_write=3).cost(usage) == pytest.approx((800 * 2 + 200 * 3) / 1e6)
    assert Price(2, 0, cache_write_1h=4).cost(usage) == pytest.approx((950 * 2 + 50 * 4) / 1e6)


def test_the_price_table_is_readable() -> None:
    table = telemetry.read_prices(PRICES)
    assert {provider for provider, _ in table} == {"openai", "anthropic", "simulated"}
    for price in table.values():
        assert price.cost(Usage(0, 1_000_000)) == price.output > price.input > (price.cache_read or 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("[openai", "Expected"),
        ("openai = 3", 'expected \\[provider."model"\\]'),
        ('[openai."m"]\ninput = 1', "give input and output"),
        ("[openai]\nm = 1", "give input and output"),
        ('[openai."m"]\ninput = 1\noutput = 2\nsurcharge = 3', "give input and output"),
        ('[openai."m"]\ninput = "1"\noutput = 2', "a price must be a number"),
        ('[openai."m"]\ninput = -1\noutput = 2', "a price must be a number"),
        ('[openai."m"]\ninput = nan\noutput = 2', "a price must be a number"),
        ('[openai."m"]\ninput = true\noutput = 2', "a price must be a number"),
    ],
)
def test_bad_price_tables(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        telemetry.read_prices(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
