"""Users, items, conversations and messages."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True)


def _timestamp(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def _owner(column: str, table: str) -> sa.Column[int]:
    reference = sa.ForeignKey(f"{table}.id", ondelete="CASCADE")
    return sa.Column(column, sa.BigInteger, reference, nullable=False)


def upgrade() -> None:
    op.create_table(
        "users",
        _id(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("api_key_hash", sa.LargeBinary, nullable=False, unique=True),
        _timestamp("created_at"),
    )
    op.create_table(
        "items",
        _id(),
        _owner("user_id", "users"),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        _timestamp("created_at"),
        _timestamp("updated_at"),
    )
    op.create_index("ix_items_user_id_id", "items", ["user_id", "id"])
    op.create_table(
        "conversations",
        _id(),
        _owner("user_id", "users"),
        sa.Column("title", sa.Text, nullable=False),
        _timestamp("created_at"),
    )
    op.create_index("ix_conversations_user_id_id", "conversations", ["user_id", "id"])
    op.create_table(
        "messages",
        _id(),
        _owner("conversation_id", "conversations"),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("complete", sa.Boolean, nullable=False, server_default="true"),
        sa.Column("model", sa.Text),
        sa.Column("provider", sa.Text),
        _timestamp("created_at"),
        sa.CheckConstraint("role IN ('user', 'assistant')", name="ck_messages_role"),
    )
    op.create_index("ix_messages_conversation_id_id", "messages", ["conversation_id", "id"])


def downgrade() -> None:
    for table in ("messages", "conversations", "items", "users"):
        op.drop_table(table)
