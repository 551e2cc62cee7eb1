"""Applications below others, also below a catch-all, FastAPI's frontends and its body limit; served by real servers."""

import tempfile
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from app.telemetry.http import PrometheusMiddleware, metrics_endpoint


class Guard:
    """Answers by itself where the query says so, before any route is searched."""

    def __init__(self, app: ASGIApp, word: bytes = b"inner") -> None:
        self.app = app
        self.word = word

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"")
        if scope["type"] == "http" and query == self.word + b"=401":
            await PlainTextResponse("no", 401)(scope, receive, send)
        elif scope["type"] == "http" and query == self.word + b"=fails":
            raise LookupError("a test")
        else:
            await self.app(scope, receive, send)


pages = Path(tempfile.mkdtemp(prefix="telemetry-pages-"))
(pages / "index.html").write_text("<p>page</p>")

api = FastAPI()
api.add_middleware(Guard)


@api.get("/users/{user_id}")
def user(user_id: int) -> int:
    return user_id


api.frontend("/help", directory=pages)
deep = Starlette(
    routes=[Route("/leaf/{key}", lambda request: PlainTextResponse("leaf"))], middleware=[Middleware(Guard)]
)
api.mount("/deep", deep)

app = FastAPI()
app.add_middleware(Guard, word=b"outer")
app.add_middleware(PrometheusMiddleware, exclude_paths=("/excluded", "/metrics"))
app.add_route("/metrics", metrics_endpoint())


@app.get("/excluded")
def excluded() -> None:
    return None


@app.get("/shown")
def shown() -> None:
    return None


app.mount("/api", api)
app.mount("/again", api)
app.router.routes.append(Mount("/spa", app=StaticFiles(directory=pages, html=True)))
app.mount("/", StaticFiles(directory=pages, html=True))

# Hosts, a mounted application behind a middleware of its own, one with the whole telemetry, and a mount without a path.
last = FastAPI()
last.add_middleware(Guard)
last.add_middleware(PrometheusMiddleware)


@last.get("/rest/{key}")
def rest(key: str) -> str:
    return key


hosts = FastAPI()
hosts.add_middleware(Guard, word=b"outer")
hosts.add_middleware(PrometheusMiddleware)
hosts.add_route("/metrics", metrics_endpoint())
hosts.router.routes.append(Host("pages.example.org", StaticFiles(directory=pages, html=True)))
hosts.router.routes.append(Host("api.example.org", api))
hosts.mount("/packed", GZipMiddleware(api))
hosts.router.routes.append(
    Mount("/routes/{shop}", routes=[Mount("/deep", routes=[Route("/leaf", PlainTextResponse())])])
)


class OfAnotherFramework:
    """Has routes that are none of Starlette's, and takes its mount off the scope's path, as Litestar does both."""

    routes = ("/orders/{order:int}",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = scope["path"].removeprefix(scope["root_path"])
        await PlainTextResponse("", 200 if scope["path"].startswith("/orders/") else 404)(scope, receive, send)


foreign = OfAnotherFramework()
hosts.mount("/foreign", foreign)
hosts.mount("/of/{shop}/foreign", foreign)
hosts.mount("/alone", OfAnotherFramework())
hosts.mount("", last)

# Frontends come after all routes and mounts, so a mount at "/" would hide them.
whole = FastAPI()
whole.add_middleware(Guard, word=b"outer")
whole.add_middleware(PrometheusMiddleware)
whole.add_route("/metrics", metrics_endpoint())
included = APIRouter(prefix="/included")
included.frontend("/docs", directory=pages)
whole.include_router(included)
whole.frontend("/app", directory=pages, fallback="index.html")
whole.frontend("/", directory=pages, fallback="index.html")

# A limit of the body's size that stands outside of all middlewares.
limited = FastAPI(max_body_size=100)
limited.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
limited.add_middleware(PrometheusMiddleware)
limited.add_route("/metrics", metrics_endpoint())


@limited.post("/reads")
async def reads(request: Request) -> int:
    return len(await request.body())


@limited.post("/ignores")
async def ignores() -> None:
    return None


@limited.post("/parses")
async def parses(body: dict[str, str]) -> None:
    return None
