"""Dependencies of the routes: a database session, and the user whose API key the request has."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.engine import named
from app.db.models import User
from app.telemetry.users import active_users

_KEY_PREFIX = "sl_"  # lets secret scanners find a leaked key

_bearer = HTTPBearer(auto_error=False, description="The `api_key` that `POST /users` returned.")


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session
        await session.commit()


# Scope "function": committed before the response is sent (so that a failed commit is seen), and no connection is held
# while a response streams.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]


def new_api_key() -> tuple[str, bytes]:
    """A new key and the hash to store."""
    key = _KEY_PREFIX + secrets.token_urlsafe(32)
    return key, hash_api_key(key)


def hash_api_key(key: str) -> bytes:
    """SHA-256, unsalted and fast on purpose: 256 random bits cannot be guessed or looked up, unlike a password.

    The row is found through an index on the hash, so timing can reveal the hash at most, not the key.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


async def _current_user(
    session: Session, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> User:
    user = None
    if credentials is not None:
        query = select(User).where(User.api_key_hash == hash_api_key(credentials.credentials))
        user = await session.scalar(query, execution_options=named("user_by_key"))
    if user is None:
        raise HTTPException(401, "A valid API key is required", {"WWW-Authenticate": "Bearer"})
    active_users.touch(str(user.id))
    return user


CurrentUser = Annotated[User, Depends(_current_user, scope="function")]
