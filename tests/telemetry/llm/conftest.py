"""Each test has a model of its own, so that what is measured for it starts at nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from app.telemetry import llm as telemetry
from tests.telemetry.llm import fake_provider
from tests.telemetry.llm.fake_provider import FakeProvider
from tests.telemetry.llm.measured import PRICE

_numbers = itertools.count()


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with fake_provider.running() as provider:
        yield provider


@pytest.fixture
def model() -> str:
    """The name of a model that all providers have, at a price that is easy to reckon with."""
    name = f"model-{next(_numbers)}"
    providers = ("openai", "anthropic", "simulated")
    telemetry.configure({provider: [name] for provider in providers}, {(each, name): PRICE for each in providers})
    return name
