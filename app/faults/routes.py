"""The routes of /faults, and the dependency that applies faults to requests."""

from __future__ import annotations

import hmac
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine

from app.api.errors import BODY_ERRORS, responses
from app.faults.base import Fault, Service, logger
from app.faults.switches import FAULTS, Faults
from app.llm import LLMService
from app.settings import Settings, SettingsError

_bearer = HTTPBearer(auto_error=False, scheme_name="FaultsToken", description="The content of FAULTS_TOKEN_FILE.")


def add_faults(app: FastAPI, settings: Settings, engine: AsyncEngine, llm: LLMService) -> None:
    """Add the /faults routes to the application; its lifespan has to enter `app.state.faults.watch()`.

    Raises:
        SettingsError: the folder for the switches or for the disk fault cannot be used.
    """
    folder = settings.faults_dir or Path(tempfile.gettempdir()) / f"sightline-faults-{os.getuid()}-{settings.app_port}"
    _make_private(folder)
    disk_folder = settings.faults_disk_dir or folder
    if not os.access(disk_folder, os.W_OK | os.X_OK):
        raise SettingsError(f"FAULTS_DISK_DIR: {disk_folder} is not a folder that the service can write to")
    pool_limit = settings.database_pool_size + settings.database_max_overflow
    app.state.faults = Faults(Service(engine, llm, folder, disk_folder, pool_limit))
    token = settings.faults_token.get_secret_value() if settings.faults_token else ""
    app.include_router(_router(app.state.faults, token))
    logger.warning("FAULTS_ENABLED: every client with the faults token can break this service")


def _make_private(folder: Path) -> None:
    """Accept the folder only if this user alone can access it: other users of the machine can guess its name."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SettingsError(f"FAULTS_DIR: cannot use {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise SettingsError(f"FAULTS_DIR: {folder} must belong to this user, with mode 0700")


async def hit_by_faults(request: Request) -> None:
    """Dependency of the API's routes: it runs when the route is known, so metrics have the endpoint."""
    faults: Faults = request.app.state.faults
    await faults.hit_request(request.scope["path"])


class FaultState(BaseModel):
    name: str
    description: str
    active: bool
    seconds_left: float | None
    parameters: dict[str, Any] | None


class FaultList(BaseModel):
    faults: list[FaultState]


def _router(faults: Faults, token: str) -> APIRouter:
    """The /faults routes. Every route requires the token, since faults break the service."""

    def check_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
        given = credentials.credentials if credentials else ""
        if not token or not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "A valid faults token is required", {"WWW-Authenticate": "Bearer"})

    router = APIRouter(prefix="/faults", tags=["faults"], dependencies=[Depends(check_token)])

    def state(name: str) -> FaultState:
        switch = faults.on().get(name)
        return FaultState(
            name=name,
            description=(FAULTS[name].__doc__ or "").strip(),
            active=switch is not None,
            seconds_left=max(0.0, switch.until - time.time()) if switch else None,
            parameters=switch.fault.model_dump() if switch else None,
        )

    @router.get("", responses=responses(401))
    async def list_faults() -> FaultList:
        """All faults and their state. Another worker sees a change after up to 0.2 seconds."""
        return FaultList(faults=[state(name) for name in FAULTS])

    @router.delete("", status_code=204, responses=responses(401))
    async def switch_all_off() -> Response:
        for name in FAULTS:
            faults.switch_off(name)
        return Response(status_code=204)

    for name, kind in FAULTS.items():
        _add_switch(router, faults, state, name, kind)
    return router


def _add_switch(
    router: APIRouter, faults: Faults, state: Callable[[str], FaultState], name: str, kind: type[Fault]
) -> None:
    """Add routes per fault, so that the OpenAPI document has its parameters."""

    async def switch_on(fault: Fault) -> FaultState:
        faults.switch_on(fault)
        return state(name)

    async def switch_off() -> Response:
        """Succeeds also if the fault is not active."""
        faults.switch_off(name)
        return Response(status_code=204)

    switch_on.__annotations__["fault"] = kind
    switch_on.__doc__ = kind.__doc__
    router.add_api_route(
        f"/{name}",
        switch_on,
        methods=["POST"],
        name=f"Switch on {name}",
        responses=responses(401, 409, *BODY_ERRORS),
    )
    router.add_api_route(
        f"/{name}",
        switch_off,
        methods=["DELETE"],
        status_code=204,
        name=f"Switch off {name}",
        responses=responses(401),
    )
