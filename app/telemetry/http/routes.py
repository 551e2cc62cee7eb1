# SPDX-License-Identifier: Apache-2.0
"""The full template of a route, `/users/{user_id}`, from what the router stores in the ASGI scope; never a path.

app.include_router(router, prefix="/v1")      /v1/items/{item_id}
app.mount("/tenants/{tenant}", shop)          /tenants/{tenant}/orders/{order}
app.mount("/static", StaticFiles(...))        /static/{path}
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

from starlette.convertors import CONVERTOR_TYPES
from starlette.responses import PlainTextResponse
from starlette.routing import PARAM_REGEX, Mount
from starlette.types import Scope

# Before 0.33 Starlette's mounts removed their prefix from the path that the application below sees.
_, _child = Mount("/mount", app=PlainTextResponse()).matches({"type": "http", "path": "/mount/x", "root_path": ""})
_MOUNTS_KEEP_PATH = "path" not in _child


def routes_of(app: Any) -> Sequence[Any]:
    """The routes of an application, also through middlewares around it; empty for another framework."""
    routes = getattr(_inside(app), "routes", ())
    ours = isinstance(routes, Sequence) and all(hasattr(route, "matches") for route in routes)
    return routes if ours else ()


def _contexts(routes: Sequence[Any]) -> Iterable[Any]:
    """The routes, with those of included routers in place of these.

    Older versions of FastAPI have them in the list itself. If FastAPI is not imported, there are no included routers.
    """
    contexts: Callable[[Sequence[Any]], Iterable[Any]] = getattr(
        sys.modules.get("fastapi.routing"), "iter_route_contexts", iter
    )
    return contexts(routes)


def frontends_of(app: Any) -> list[str]:
    """The paths of FastAPI's frontends, which are in no public list of routes; the longest first."""
    app = _inside(app)
    paths = []
    for group in getattr(getattr(app, "router", app), "_iter_low_priority_routes", tuple)():
        prefix = getattr(group, "frontend_prefix", "")  # of an included router
        routes = getattr(getattr(group, "original_route", group), "routes", ())
        paths += [(prefix + route.path).rstrip("/") for route in routes]
    return sorted(paths, key=len, reverse=True)


def _inside(app: Any) -> Any:
    """An application without the middlewares around it."""
    while not hasattr(app, "routes") and hasattr(app, "app"):
        app = app.app
    return app


def path_below(root_path: str, path: str) -> str:
    """A path without the prefix under which the application is served: only some servers include it."""
    rest = path.removeprefix(root_path)
    return rest if rest.startswith("/") else path


def _path(scope: Scope) -> str:
    """The path from the application's root, also below its mounts."""
    path, root = scope["path"], scope.get("root_path", "")
    if "app_root_path" not in scope:
        return path_below(root, path)
    if not _MOUNTS_KEEP_PATH:
        path = root + path
    return path_below(scope["app_root_path"], path)


class Template:
    """A route's full path, from the application's root.

    Attributes:
        text: None for a mount or a host with routes of its own.
        inside: these routes.
        host: for a route for hosts, the regular expression that the request's host must match.
        kept: objects looked up by id(), kept alive so that no other object gets the same id.
    """

    def __init__(
        self, pattern: str, text: str | None, inside: "Sequence[Template]", prefix: str, host: Any, kept: Any
    ) -> None:
        self.regex = re.compile(pattern)
        self.text = text
        self.inside = inside
        self.prefix = prefix
        self.host = host
        self.kept = kept


class Templates:
    """From what the router stores in the scope (`route`, `endpoint`) to the full template of the route.

    A table by object identity, built from the application's routes, and again when they change: a request costs the
    same with any number of routes. If one route can be reached in several ways (an application mounted twice, a router
    included twice), or no route was, the path decides as in the router, among the routes of the mount it reached.
    """

    def __init__(self, routes: Sequence[Any], app: Any = None) -> None:
        self._routes = routes
        self._app = app
        self._make()

    def _make(self) -> None:
        self._by_id: dict[int, list[Template]] = {}
        self._all = self._add(self._routes, self._app, "", "", 0)
        self._made = perf_counter()

    def of(self, scope: Scope, status: int) -> tuple[str | None, bool]:
        """The template, None if no route matched, and whether the scope's route alone determines it (not the path)."""
        route, endpoint = scope.get("route"), scope.get("endpoint")
        frontend = _frontend(scope)
        if route is None and endpoint is None:
            if frontend is not None:
                return frontend, False
            # Either the router found no such route, or another middleware answered, or a slash is missing.
            searched = "router" in scope and status not in (307, 308)
            return (None if searched else _match(scope, status, self._all)), False
        if id(endpoint if route is None else route) not in self._by_id and perf_counter() - self._made > 1:
            self._make()  # a router included in another one has grown
        by_route, by_endpoint = self._by_id.get(id(route), []), self._by_id.get(id(endpoint), [])
        # FastAPI sets `route` for its own routes only: it may still be the mount above a plain Starlette route.
        templates = [template for template in by_route if template in by_endpoint] or by_endpoint or by_route
        if not templates or (route is not None and not by_route):
            return getattr(route, "path_format", None), False
        if len(templates) == 1 and templates[0].text is not None:
            return templates[0].text, templates == (by_route or by_endpoint)
        if templates[0].text is None and frontend is not None:
            path = _path(scope)
            prefix = next((found.prefix for found in templates if found.regex.fullmatch(path)), "")
            return prefix + frontend, False
        return _match(scope, status, templates) or _mounted_at(scope, templates), False

    def _add(self, routes: Sequence[Any], app: Any, pattern: str, text: str, depth: int) -> list[Template]:
        added: list[Template] = []
        if depth > 16:  # an application mounted in itself
            return added
        for route in _contexts(routes):
            inner = getattr(route, "routes", None)
            below = getattr(route, "app", None)
            if inner is not None:
                inner = routes_of(route) or routes_of(below)
            path = getattr(route, "path", None)
            if path is None and getattr(route, "host", None) is None:
                continue
            path = path or ""
            whole_pattern, whole_text = pattern + _pattern(path), text + PARAM_REGEX.sub(r"{\1}", path)
            endpoint = getattr(route, "endpoint", None) if inner is None else below
            host = getattr(route, "host_regex", None)
            kept = (route, endpoint)
            if inner:
                inside = self._add(inner, below, whole_pattern, whole_text, depth + 1)
                template = Template(f"{whole_pattern}/.*", None, inside, whole_text, host, kept)
            elif inner is not None:  # a mounted application without routes, such as static files
                template = Template(f"{whole_pattern}/.*", f"{whole_text}/{{path}}", (), whole_text, host, kept)
            else:
                template = Template(whole_pattern, whole_text, (), whole_text, host, kept)
            added.append(template)
            known = (
                route,
                endpoint,
                getattr(route, "route", None),
                getattr(route, "original_route", None),
                getattr(getattr(route, "_route_context", None), "starlette_route", None),
            )
            for key in {id(part) for part in known if part is not None}:
                self._by_id.setdefault(key, []).append(template)
        for path in frontends_of(app):  # named in the scope, unless a middleware responds first
            whole_text = f"{text}{path}/{{path}}"
            added.append(Template(f"{pattern}{re.escape(path)}(?:/.*)?", whole_text, (), whole_text, None, ()))
        return added


def _match(scope: Scope, status: int, templates: Sequence[Template]) -> str | None:
    """The first route that matches a path, also through a redirect that adds or removes slashes at its end."""
    path = _path(scope)
    host = next((value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"), "")
    host = host.partition(":")[0].lower()
    found = _search(path, host, templates)
    if found is None and status != 404:
        found = _search(path.rstrip("/") if path.endswith("/") else path + "/", host, templates)
    return found


def _mounted_at(scope: Scope, templates: Sequence[Template]) -> str | None:
    """Of several mounts of one application of another framework, which may have changed the path: by the root path."""
    root = path_below(scope.get("app_root_path", ""), scope.get("root_path", "")) + "/"
    return next((found.text for found in templates if found.text is not None and found.regex.fullmatch(root)), None)


def _search(path: str, host: str, templates: Sequence[Template]) -> str | None:
    for template in templates:
        if template.regex.fullmatch(path) and (template.host is None or template.host.match(host)):
            if template.text is not None:
                return template.text
            # A mount matches everything below it; a host, which has no path, only what its routes match.
            found = _search(path, host, template.inside)
            if found is not None or template.prefix:
                return found
    return None


def _frontend(scope: Scope) -> str | None:
    """The template of a page of FastAPI's app.frontend(), which stores no route in the scope: from its path."""
    fastapi = scope.get("fastapi")
    if not fastapi or "frontend_path" not in fastapi:
        return None
    length = fastapi.get("frontend_specificity", 0)
    path = path_below(scope.get("root_path", ""), scope["path"])
    return f"{path[:length]}/{{path}}"


def _pattern(path: str) -> str:
    """A regular expression for a path with parameters, like `/items/{item_id:int}`."""
    parts, end = [], 0
    for match in PARAM_REGEX.finditer(path):
        convertor = CONVERTOR_TYPES[(match[2] or ":str").removeprefix(":")]
        parts += [re.escape(path[end : match.start()]), f"(?:{convertor.regex})"]
        end = match.end()
    return "".join(parts) + re.escape(path[end:])
