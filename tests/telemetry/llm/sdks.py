"""The providers' SDKs and what imports them, each imported when a test first uses it.

Every process of a parallel run imports all test modules, and Anthropic's SDK takes as long as a quarter of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import anthropic
    import openai

    from app.llm import anthropic_messages, openai_compatible
else:
    import importlib

    class Later:
        def __init__(self, module: str) -> None:
            self._module = module

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # pytest asks everything in a module for marks of its own
                raise AttributeError(name)
            return getattr(importlib.import_module(self._module), name)

    anthropic, openai = Later("anthropic"), Later("openai")
    anthropic_messages, openai_compatible = Later("app.llm.anthropic_messages"), Later("app.llm.openai_compatible")

__all__ = ["anthropic", "anthropic_messages", "openai", "openai_compatible"]
