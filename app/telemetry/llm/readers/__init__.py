# SPDX-License-Identifier: Apache-2.0
"""Readers of model responses, one per protocol, for objects of an SDK and dicts, without importing an SDK.

A reader is a module with `claims(thing)`, `whole(answer, response)` and `event(answer, event)`, which record in an
`Answer` what they find. The reader is looked up for each event, as the first event may not show the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..errors import error_in_answer
from ..misuse import refuse_text
from ..shapes import get, items
from . import anthropic, chat, langchain, responses
from .answer import Answer
from .numbers import read_usage

__all__ = ["Answer", "by_class", "event", "is_malformed", "may_carry_usage", "read_usage", "whole"]


class Reader(Protocol):
    """The interface of the modules of this package."""

    def claims(self, thing: Any) -> bool: ...
    def whole(self, answer: Answer, response: Any) -> None: ...
    def event(self, answer: Answer, event: Any) -> None: ...


_READERS: list[Reader] = [langchain, chat, responses, anthropic]


def whole(answer: Answer, response: Any) -> bool:
    """Read a complete response; False if no reader recognizes it."""
    if by_class[response.__class__] is _chat_event:  # the other readers need not be asked
        chat.whole(answer, response)
        return True
    for reader in _READERS:
        if reader.claims(response):
            reader.whole(answer, response)
            return True
    if _error(answer, response):
        return True
    if (usage := get(response, "usage")) is None:
        return False
    answer.usage(usage)  # embeddings, and anything else that reports tokens
    return True


def _event(answer: Answer, event: Any) -> bool:
    """Read an event of any protocol, completely; always True (see below)."""
    if isinstance(event, str | bytes):
        refuse_text(first=answer.last is None)
    answer.last = event
    if get(event, "type") == "chunk" and get(event, "chunk") is not None:  # OpenAI's stream helper
        event = get(event, "chunk")
    for reader in _READERS:
        if reader.claims(event):
            reader.event(answer, event)
            break
    else:
        if (usage := get(event, "usage")) is not None:
            answer.usage(usage, get(event, "id"))
    _error(answer, event)
    return True


def _error(answer: Answer, thing: Any) -> bool:
    """Record an error in place of a response or an event; False if it is none.

    `{"error": {...}}`, `{"type": "error", ...}`, vLLM's `{"object": "error", ...}`, Gemini's list of one such error,
    Bedrock's `{"throttlingException": {...}}`.
    """
    if first := items(thing):
        return _error(answer, first[0])
    error = get(thing, "error")
    if error is not None or "error" in (get(thing, "type"), get(thing, "object")):
        answer.failure = error_in_answer(thing)
    elif isinstance(thing, dict) and len(thing) == 1 and str(next(iter(thing))).endswith("Exception"):
        answer.failure = error_in_answer(next(iter(thing)))
    else:
        return False
    return True


event: Callable[[Answer, Any], bool] = _event


def may_carry_usage(answer: Answer) -> bool:
    """False if the last event of a stream shows that usage was not requested from the provider."""
    return not chat.claims(answer.last) or chat.may_carry_usage(answer.last)


def is_malformed(answer: Answer) -> bool:
    """True if the last event is one that its protocol does not allow."""
    last = answer.last
    return isinstance(last, str | bytes | int | float | list) or (chat.claims(last) and chat.is_malformed(last))


# Faster ways to read an event, chosen by the class of the previous event. Each reads any event correctly, and returns
# True if it had to read the event completely.


def _dict_event(answer: Answer, event: Any) -> bool:
    """A dict. Chunks of chat completions that only contain more text are handled here."""
    try:
        if len(event) == answer.plain_chunk and "error" not in event and not event.get("usage"):
            (choice,) = event["choices"]
            if not choice["finish_reason"] and not choice["index"] and len(choice) == answer.plain_choice:
                answer.last = event
                return False
        elif event.get("type") in _CONTENT:
            return _content(answer, event)
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return _event(answer, event)


def _chat_event(answer: Answer, event: Any) -> bool:
    """The same for an SDK's object of chat completions: a Pydantic model, which keeps extra fields separately."""
    try:
        fields = event.__dict__
        if answer.first_token and not fields["usage"] and not event.__pydantic_extra__:
            (choice,) = fields["choices"]
            fields = choice.__dict__
            if not fields["finish_reason"] and not fields["index"] and not choice.__pydantic_extra__:
                answer.last = event
                return False
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return _event(answer, event)


def _typed_event(answer: Answer, event: Any) -> bool:
    """An SDK's object of another protocol."""
    if getattr(event, "type", None) in _CONTENT:
        return _content(answer, event)
    return _event(answer, event)


def _content(answer: Answer, event: Any) -> bool:
    if answer.first_token:  # already known: nothing else to read
        answer.last = event
        return False
    return _event(answer, event)


_CONTENT = frozenset(("content_block_delta", "response.output_text.delta"))


class _ByClass(dict[type, Callable[[Answer, Any], bool]]):
    """The function that reads events of a class, chosen at the first event of that class."""

    def __missing__(self, kind: type) -> Callable[[Answer, Any], bool]:
        fields = getattr(kind, "__pydantic_fields__", {})
        read = _chat_event if "choices" in fields and "usage" in fields else _typed_event
        if len(self) < 1000:
            self[kind] = read
        return read


by_class = _ByClass({dict: _dict_event})
