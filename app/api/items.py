"""Items of a user. Keyset pagination by id, so the last page costs no more than the first."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Response
from sqlalchemy import delete, func, insert, select, update

from app import metrics
from app.api.dependencies import CurrentUser, Session
from app.api.errors import BODY_ERRORS, responses
from app.api.schemas import After, Item, ItemPage, Limit, NewItem, PathId
from app.db import models
from app.db.engine import named

router = APIRouter(prefix="/items", tags=["items"])


@router.get("", responses=responses(401, 503))
async def list_items(user: CurrentUser, session: Session, limit: Limit = 20, after: After = None) -> ItemPage:
    """The user's items, oldest first."""
    query = select(models.Item).where(models.Item.user_id == user.id, models.Item.id > (after or 0))
    query = query.order_by(models.Item.id).limit(limit + 1)
    rows = (await session.scalars(query, execution_options=named("item_list"))).all()
    items = [Item.model_validate(row) for row in rows[:limit]]
    return ItemPage(items=items, next=items[-1].id if len(rows) > limit else None)


@router.post("", status_code=201, responses=responses(401, *BODY_ERRORS, 503))
async def create_item(new: NewItem, user: CurrentUser, session: Session) -> Item:
    query = insert(models.Item).values(user_id=user.id, **new.model_dump()).returning(models.Item)
    row = (await session.scalars(query, execution_options=named("item_create"))).one()
    await session.commit()  # counted only if it is stored
    metrics.items_created.inc()
    return Item.model_validate(row)


@router.get("/{item_id}", responses=responses(401, 404, 503))
async def get_item(item_id: PathId, user: CurrentUser, session: Session) -> Item:
    query = select(models.Item).where(models.Item.id == item_id, models.Item.user_id == user.id)
    return _found(await session.scalar(query, execution_options=named("item_get")))


@router.put("/{item_id}", responses=responses(401, 404, *BODY_ERRORS, 503))
async def replace_item(item_id: PathId, new: NewItem, user: CurrentUser, session: Session) -> Item:
    query = (
        update(models.Item)
        .where(models.Item.id == item_id, models.Item.user_id == user.id)
        .values(**new.model_dump(), updated_at=func.now())
        .returning(models.Item)
    )
    return _found((await session.scalars(query, execution_options=named("item_update"))).one_or_none())


@router.delete("/{item_id}", status_code=204, responses=responses(401, 404, 503))
async def delete_item(item_id: PathId, user: CurrentUser, session: Session) -> Response:
    query = delete(models.Item).where(models.Item.id == item_id, models.Item.user_id == user.id)
    deleted = await session.scalar(query.returning(models.Item.id), execution_options=named("item_delete"))
    if deleted is None:
        raise _not_found()
    return Response(status_code=204)


def _found(row: models.Item | None) -> Item:
    if row is None:
        raise _not_found()
    return Item.model_validate(row)


def _not_found() -> HTTPException:
    """The same for another user's item, so that it does not reveal whether the item exists."""
    return HTTPException(404, "You have no item with this id")
