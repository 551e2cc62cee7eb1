"""Conversations with the LLM, as stored."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, HTTPException
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.dependencies import CurrentUser, Session
from app.api.errors import responses
from app.api.schemas import (
    After,
    Conversation,
    ConversationPage,
    ConversationWithMessages,
    Limit,
    Message,
    PathId,
)
from app.db import models
from app.db.engine import named

MESSAGES_BYTES = 2**20  # after which no further message is read at once; a single one may have 800 kB

router = APIRouter(prefix="/conversations", tags=["conversations"])


@router.get("", responses=responses(401, 503))
async def list_conversations(
    user: CurrentUser, session: Session, limit: Limit = 20, after: After = None
) -> ConversationPage:
    """The user's conversations, oldest first, without their messages."""
    query = select(models.Conversation).where(
        models.Conversation.user_id == user.id, models.Conversation.id > (after or 0)
    )
    query = query.order_by(models.Conversation.id).limit(limit + 1)
    rows = (await session.scalars(query, execution_options=named("conversation_list"))).all()
    page = [Conversation.model_validate(row) for row in rows[:limit]]
    return ConversationPage(conversations=page, next=page[-1].id if len(rows) > limit else None)


@router.get("/{conversation_id}", responses=responses(401, 404, 503))
async def get_conversation(
    conversation_id: PathId, user: CurrentUser, session: Session, limit: Limit = 100, after: After = None
) -> ConversationWithMessages:
    """One conversation with a page of its messages, oldest first: fewer than `limit` where they are long."""
    conversation = await find_conversation(session, conversation_id, user)
    rows, more = await find_messages(session, conversation.id, limit, after=after or 0)
    page = [Message.model_validate(row) for row in rows]
    return ConversationWithMessages(
        id=conversation.id,
        title=conversation.title,
        created_at=conversation.created_at,
        messages=page,
        next=page[-1].id if more else None,
    )


async def find_messages(
    session: AsyncSession, conversation_id: int, limit: int, *, after: int = 0, newest_first: bool = False
) -> tuple[Sequence[models.Message], bool]:
    """The conversation's next messages, at most `limit` and about MESSAGES_BYTES, and whether there are more."""
    message = models.Message
    order = message.id.desc() if newest_first else message.id.asc()
    size = func.octet_length(message.content)
    before = func.sum(size).over(order_by=order) - size
    query = select(message.id, before.label("before"))
    query = query.where(message.conversation_id == conversation_id, message.id > after)
    near = query.order_by(order).limit(limit + 1).cte("near")
    number = select(func.count()).select_from(near).scalar_subquery()
    chosen = select(message, number).join(near, near.c.id == message.id).where(near.c.before < MESSAGES_BYTES)
    found = await session.execute(chosen.order_by(order).limit(limit), execution_options=named("message_list"))
    rows = found.all()
    return [row for row, _ in rows], bool(rows) and rows[0][1] > len(rows)


async def find_conversation(session: AsyncSession, conversation_id: int, user: models.User) -> models.Conversation:
    """The user's conversation, or a 404 that does not reveal whether another user has it."""
    query = select(models.Conversation).where(
        models.Conversation.id == conversation_id, models.Conversation.user_id == user.id
    )
    conversation = await session.scalar(query, execution_options=named("conversation_get"))
    if conversation is None:
        raise HTTPException(404, "You have no conversation with this id")
    return conversation
