"""Users: sign-up, and the current user."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import insert

from app.api.dependencies import CurrentUser, Session, new_api_key
from app.api.errors import BODY_ERRORS, responses
from app.api.schemas import NewUser, User, UserWithKey
from app.db import models
from app.db.engine import named

router = APIRouter(prefix="/users", tags=["users"])


@router.post("", status_code=201, responses=responses(*BODY_ERRORS, 429, 503))
async def create_user(new: NewUser, session: Session) -> UserWithKey:
    """Sign up; needs no credentials. The response contains the API key, which cannot be shown again."""
    api_key, api_key_hash = new_api_key()
    query = insert(models.User).values(name=new.name, api_key_hash=api_key_hash).returning(models.User.id)
    user_id = (await session.execute(query, execution_options=named("user_create"))).scalar_one()
    return UserWithKey(id=user_id, name=new.name, api_key=api_key)


@router.get("/me", responses=responses(401, 503))
async def get_me(user: CurrentUser) -> User:
    """The user whose API key the request has."""
    return User.model_validate(user)
