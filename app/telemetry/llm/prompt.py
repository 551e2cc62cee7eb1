# SPDX-License-Identifier: Apache-2.0
"""The length of a prompt, in characters."""

from __future__ import annotations

from typing import Any

from .shapes import get

_TEXT_FIELDS = ("content", "text", "output", "toolResult", "parts")  # the first one that a part has is used
_DEPTH = 8  # levels of nesting


def prompt_length(prompt: Any) -> int:
    """Length of `prompt` in characters: of a text, an int, or messages in the format of any SDK, as dicts or objects.

    All text of messages counts: system prompt, questions, answers, text parts, tool results. Images, audio, files,
    their URLs, ids and the arguments of tool calls do not count.

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
