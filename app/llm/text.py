"""The text in a provider's answer, or an error if it has none."""

from __future__ import annotations

from typing import Any


class MalformedAnswerError(Exception):
    """The provider violated its protocol. The telemetry reads `code` like that of an SDK's exception."""

    code = "server"


def text_of(content: Any) -> str:
    """The text of an answer or of a piece of one; empty where the provider sent none.

    Raises:
        MalformedAnswerError: it is no text, or a text that no response can carry (a lone surrogate).
    """
    if content is None:
        return ""
    if not isinstance(content, str):
        raise MalformedAnswerError(f"content is a {type(content).__name__}")
    if not content.isascii():
        try:
            content.encode()
        except UnicodeEncodeError:
            raise MalformedAnswerError("content is not valid Unicode") from None
    return content
