"""Request and response bodies. The limits are defined here, so that the OpenAPI document states them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

# The largest integer that every JSON parser reads exactly (RFC 8259, section 6); PostgreSQL's bigint holds more.
MAX_ID = 2**53 - 1

# PostgreSQL cannot store U+0000 in text. (pydantic already rejects lone surrogates.)
_NO_NUL = r"^[^\x00]*$"


def _whole_number(value: object) -> object:
    """In JSON Schema, 2.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Id = Annotated[int, Field(ge=1, le=MAX_ID), BeforeValidator(_whole_number)]
PathId = Annotated[int, Path(ge=1, le=MAX_ID)]
Limit = Annotated[int, Query(ge=1, le=100, description="Maximum number of entries to return.")]
After = Annotated[
    int | None,
    Query(ge=1, le=MAX_ID, description="The cursor `next` of the previous page; omit it for the first page."),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_NO_NUL)]
Title = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NO_NUL)]
Description = Annotated[str, StringConstraints(max_length=10_000, pattern=_NO_NUL)]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=200_000, pattern=_NO_NUL)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$")]


class Input(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Output(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class NewUser(Input):
    name: Name


class User(Output):
    id: Id
    name: str


class UserWithKey(User):
    api_key: str = Field(description="Shown only once; the service stores its hash.")


class NewItem(Input):
    title: Title
    description: Description = ""


class Item(Output):
    id: Id
    title: str
    description: str
    created_at: datetime
    updated_at: datetime


class ItemPage(Output):
    items: list[Item]
    next: Id | None = Field(description="Pass it as `after` to get the next page; null on the last one.")


class ChatRequest(Input):
    message: Prompt
    conversation_id: Id | None = Field(None, description="Continues this conversation; omit it to start one.")
    model: ModelName | None = Field(None, description="One of the service's models, else 404; omit it for the default.")
    stream: bool = Field(False, description="Stream the answer as server-sent events.")


class Usage(Output):
    input_tokens: int
    output_tokens: int


class ChatAnswer(Output):
    conversation_id: Id
    message: str
    model: str
    provider: str
    usage: Usage | None = Field(description="Null if the provider did not report it.")
    stored: bool = Field(True, description="False if the answer could not be stored: it is not in the conversation.")


class Conversation(Output):
    id: Id
    title: str
    created_at: datetime


class ConversationPage(Output):
    conversations: list[Conversation]
    next: Id | None = Field(description="Pass it as `after` to get the next page; null on the last one.")


class Message(Output):
    id: Id
    role: Literal["user", "assistant"]
    content: str
    complete: bool = Field(description="False for an answer that ended early.")
    model: str | None
    provider: str | None
    created_at: datetime


class ConversationWithMessages(Conversation):
    messages: list[Message]
    next: Id | None = Field(description="Pass it as `after` to get the next messages; null on the last page.")


class Status(Output):
    status: Literal["ok"]


class Problem(Output):
    detail: str


class InvalidField(Output):
    loc: list[str | int]
    msg: str
    type: str


class InvalidRequest(Output):
    detail: list[InvalidField]


class LLMInfo(Output):
    provider: str
    simulated: bool
    note: str | None


class Index(Output):
    service: str
    version: str
    llm: LLMInfo
    links: dict[str, str]
