"""The lines of the adoption guide do what it says: they are run as they stand there."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.telemetry.llm.fake_provider import (
    FakeProvider,
    anthropic_stream,
    anthropic_whole,
    openai_stream,
    openai_whole,
)
from tests.telemetry.llm.measured import measured

ROOT = Path(__file__).parents[3]


def guide() -> str:
    """The LLM section, wherever in the guide it stands."""
    sections = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("adopt*.md")))
    found = re.search(r"^## LLM calls$.*?(?=^## |\Z)", sections, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


async def run(code: str) -> None:
    """Run code that may await at its top level, as in a coroutine."""
    compiled = compile(code, "docs/adopt.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    scope: dict[str, Any] = {"question": "Hello there", "messages": [{"role": "user", "content": "Hello there"}]}
    result = eval(compiled, scope)
    if result is not None:
        await result


async def test_the_guide(fake: FakeProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for sdk, url in (("OPENAI", fake.openai_url), ("ANTHROPIC", fake.anthropic_url)):
        monkeypatch.setenv(f"{sdk}_BASE_URL", url)
        monkeypatch.setenv(f"{sdk}_API_KEY", "none")
    copied = tmp_path / "app" / "telemetry" / "prices.toml"  # where `make adopt` puts it
    copied.parent.mkdir(parents=True)
    shutil.copy(ROOT / "app" / "llm" / "prices.toml", copied)
    monkeypatch.chdir(tmp_path)
    fake.replies = [openai_whole(), openai_stream(), anthropic_whole(), anthropic_stream()]
    blocks = re.findall(r"^```python\n(.*?)^```$", guide(), re.MULTILINE | re.DOTALL)

    openai, anthropic = ("openai", "gpt-5-mini"), ("anthropic", "claude-haiku-4-5")
    before = {pair: measured(*pair) for pair in (openai, anthropic)}
    await run("".join(blocks))

    def gained(pair: tuple[str, str], name: str) -> float:
        return measured(*pair).get(name, 0) - before[pair].get(name, 0)

    assert len(fake.exchanges) == 4
    for pair in (openai, anthropic):
        assert gained(pair, "llm_requests_total{operation=chat,outcome=success}") == 2
        assert gained(pair, "llm_time_to_first_token_seconds_count") == 1
        assert gained(pair, "llm_prompt_length_characters_sum") == 2 * len("Hello there")
        assert gained(pair, "llm_cost_usd_total") > 0
    assert gained(openai, "llm_tokens_total{type=input}") == 2 * 120 + 120  # two calls, and track_tokens
    assert gained(anthropic, "llm_tokens_total{type=output}") == 2 * 30
