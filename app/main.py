"""The application: routes, middlewares and shared state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from fastapi import Depends, FastAPI

from app import __version__
from app.api import chat, conversations, health, index, items, users
from app.api.errors import add_error_handlers
from app.db.engine import QUERY_NAMES, make_engine, make_sessions
from app.limits import BODY_BYTES, RequestLimitsMiddleware, SignUpLimitMiddleware
from app.llm import create_service
from app.middleware import RequestLogMiddleware, SecurityHeadersMiddleware, request_id
from app.settings import Settings, SettingsError, load_settings
from app.telemetry.database import instrument_engine
from app.telemetry.http import PrometheusMiddleware, metrics_endpoint
from app.telemetry.users_store import UsersStore

logger = logging.getLogger("app.main")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service. It expects a migrated database (`app.db.migrate`) and connects on the first request.

    Raises:
        SettingsError: `settings` is None and the environment is not usable.
    """
    settings = settings or load_settings()
    service = create_service(settings)
    engine = make_engine(settings)
    sessions = make_sessions(engine)

    open_streams = chat.OpenStreams()
    probe = health.DatabaseProbe(sessions)
    users_store = _users_store(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if settings.app_drain_seconds:
            health.drain_before_the_end(app, settings.app_drain_seconds)
        if service.provider.name == "simulated":
            logger.info(index.SIMULATED_NOTE)
        if users_store:
            users_store.start()
        async with app.state.faults.watch() if settings.faults_enabled else nullcontext():
            yield
        await open_streams.stored()
        if users_store:
            await asyncio.to_thread(users_store.close)
        await probe.aclose()
        await service.aclose()
        await engine.dispose()

    app = FastAPI(
        title="Sightline reference service",
        version=__version__,
        lifespan=lifespan,
        # The interactive pages load scripts from a CDN; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        # A redirect would be built from the Host header, which the client controls.
        redirect_slashes=False,
        # Measured by app.telemetry.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.sessions = sessions
    app.state.database_probe = probe
    app.state.draining = False
    app.state.llm = service
    app.state.open_streams = open_streams

    add_error_handlers(app)
    dependencies = []
    if settings.faults_enabled:
        from app.faults import add_faults, hit_by_faults

        add_faults(app, settings, engine, service)
        dependencies = [Depends(hit_by_faults)]
    # After the faults, so that their effect on queries is measured.
    instrument_engine(engine, pool="main", query_names=QUERY_NAMES)
    for module in (users, items, chat, conversations):
        app.include_router(module.router, dependencies=dependencies)
    for module in (index, health):
        app.include_router(module.router)
    app.add_route("/metrics", metrics_endpoint(token_file=settings.metrics_token_file), include_in_schema=False)

    # The middleware added last is the outermost, so it measures all others.
    app.add_middleware(
        RequestLimitsMiddleware,
        timeout=settings.app_request_timeout,
        body_bytes={**BODY_BYTES, "/chat": settings.app_max_body_bytes},
    )
    if settings.app_sign_ups_per_minute:
        app.add_middleware(
            SignUpLimitMiddleware, per_minute=settings.app_sign_ups_per_minute, proxies=settings.app_proxies
        )
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(RequestLogMiddleware)
    # Exemplars link a bucket to the log lines of a request in it.
    app.add_middleware(PrometheusMiddleware, exemplar=lambda scope: {"request_id": request_id()})
    return app


def _users_store(settings: Settings) -> UsersStore | None:
    """The store that counts active users over several replicas, None if it is not configured.

    Raises:
        SettingsError: the store's address or key is not usable.
    """
    if not settings.active_users_store or settings.active_users_key is None:
        return None
    password = settings.active_users_store_password
    try:
        return UsersStore(
            settings.active_users_store,
            key=settings.active_users_key.get_secret_value().encode(),
            password=password.get_secret_value() if password else None,
        )
    except ValueError as error:
        raise SettingsError(f"ACTIVE_USERS_STORE: {error}") from None
