# SPDX-License-Identifier: Apache-2.0
"""The length of a prompt, in characters."""

from __future__ import annotations

from typing import Any

from .shapes import get

_TEXT_FIELDS = ("content", "text", "output", "toolResult", "parts")  # the first of them that a part has
_DEPTH = 8


def prompt_length(prompt: Any) -> int:
    """Characters of `prompt`: a text, its length, or messages in the form of any SDK, as dicts or objects.

    Of messages, all text counts: system prompt, questions, answers, text parts, results of tools. Images, audio, files,
    their addresses, ids and the arguments of tool calls count nothing.

    Raises:
        TypeError: it is none of these.
        ValueError: a negative length.
    """
    if isinstance(prompt, str):
        return len(prompt)
    if isinstance(prompt, int) and not isinstance(prompt, bool):
        if prompt < 0:
            raise ValueError("prompt: a length must be 0 or more")
        return prompt
    if isinstance(prompt, list | tuple) or any(get(prompt, name) is not None for name in ("role", *_TEXT_FIELDS)):
        return _length(prompt, _DEPTH)
    raise TypeError(f"prompt must be a text, its length or a list of messages, not a {type(prompt).__name__}")


def _length(thing: Any, depth: int) -> int:
    if isinstance(thing, str):
        return len(thing)
    if thing is None or depth == 0 or isinstance(thing, int | float | bytes):
        return 0
    if isinstance(thing, list | tuple):
        return sum(_length(each, depth - 1) for each in thing)
    return next((_length(text, depth - 1) for name in _TEXT_FIELDS if (text := get(thing, name)) is not None), 0)
