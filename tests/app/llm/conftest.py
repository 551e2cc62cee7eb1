"""The fake provider and a model of its own for each test, as for the telemetry's tests."""

from __future__ import annotations

from tests.telemetry.llm.conftest import fake, model

__all__ = ["fake", "model"]
