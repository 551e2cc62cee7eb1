# SPDX-License-Identifier: Apache-2.0
"""From what the router leaves in the scope to the full template of the route: `/users/{user_id}`, never a path.

app.include_router(router, prefix="/v1")      /v1/items/{item_id}
app.mount("/tenants/{tenant}", shop)          /tenants/{tenant}/orders/{order}
app.mount("/static", StaticFiles(...))        /static/{path}
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any

from starlette.convertors import CONVERTOR_TYPES
from starlette.routing import PARAM_REGEX
from starlette.types import Scope

try:
    from fastapi.routing import iter_route_contexts
except ImportError:  # Starlette alone, or a FastAPI whose included routes stand in the list themselves

    def iter_route_contexts(routes: Sequence[Any]) -> Iterator[Any]:  # type: ignore[misc]
        yield from routes


def routes_of(app: Any) -> Sequence[Any]:
    """The routes of an application, seen through the middlewares around it."""
    while not hasattr(app, "routes") and hasattr(app, "app"):
        app = app.app
    return getattr(app, "routes", None) or ()


class Template:
    """A route's full path, from the application's root."""

    def __init__(self, pattern: str, text: str | None, kept: Any) -> None:
        self.regex = re.compile(pattern)
        self.text = text  # None: a mount with routes of its own, none of which matched
        self.kept = kept  # objects known by their ids must not be replaced by others with the same ids


class Templates:
    """From what the router leaves in the scope (`route`, `endpoint`) to the full template of the route.

    A table by identity, made from the application's routes once, and again when they change: a request costs the same
    with any number of routes. Where one route is reached by several ways (an application mounted twice, a router
    included twice), the path decides between these few.
    """

    def __init__(self, routes: Sequence[Any]) -> None:
        self._routes = routes
        self._make()

    def _make(self) -> None:
        self._all: list[Template] = []
        self._by_id: dict[int, list[Template]] = {}
        self._add(self._routes, "", "", 0)
        self._made = perf_counter()

    def of(self, scope: Scope, status: int) -> tuple[str | None, bool]:
        """The template, None where no route matched, and whether the scope's route alone says that it is this one."""
        route, endpoint = scope.get("route"), scope.get("endpoint")
        if route is None and endpoint is None:
            # The router has seen it, and there is no such route; or another middleware answered, or a slash is missing.
            searched = "router" in scope and status not in (307, 308)
            return (None if searched else self._match(scope, self._all)), False
        if id(endpoint if route is None else route) not in self._by_id and perf_counter() - self._made > 1:
            self._make()  # a router included in another one has grown
        by_route, by_endpoint = self._by_id.get(id(route), []), self._by_id.get(id(endpoint), [])
        # FastAPI sets `route` for its own routes only: it may still be the mount above a plain Starlette route.
        templates = [template for template in by_route if template in by_endpoint] or by_endpoint or by_route
        if not templates or (route is not None and not by_route):
            return getattr(route, "path_format", None), False
        texts = {template.text for template in templates}
        if len(texts) == 1 and templates[0].text is not None:
            return templates[0].text, texts == {template.text for template in by_route or by_endpoint}
        return self._match(scope, [t for t in templates if t.text is not None] or self._all), False

    def _match(self, scope: Scope, templates: Iterable[Template]) -> str | None:
        path = scope["path"]
        paths = [path]
        for prefix in (scope.get("root_path"), scope.get("app_root_path")):
            if prefix and path.startswith(prefix):
                paths.insert(0, path[len(prefix) :])
        templates = list(templates)
        for redirected in (False, True):
            for candidate in paths:
                if redirected:
                    candidate = candidate[:-1] if candidate.endswith("/") else candidate + "/"
                for template in templates:
                    if template.text is not None and template.regex.fullmatch(candidate):
                        return template.text
        return None

    def _add(self, routes: Sequence[Any], pattern: str, text: str, depth: int) -> None:
        if depth > 16:  # an application mounted in itself
            return
        for route in iter_route_contexts(routes):
            inner = getattr(route, "routes", None)
            if inner is not None:
                inner = inner or routes_of(getattr(route, "app", None))
            path = getattr(route, "path", None)
            if path is None and getattr(route, "host", None) is None:
                continue
            path = path or ""
            whole_pattern, whole_text = pattern + _pattern(path), text + PARAM_REGEX.sub(r"{\1}", path)
            endpoint = getattr(route, "endpoint", None) if inner is None else getattr(route, "app", None)
            if inner:
                self._add(inner, whole_pattern, whole_text, depth + 1)
                template = Template(f"{whole_pattern}/.*", None, (route, endpoint))
            elif inner is not None:  # a mounted application without routes, such as static files
                template = Template(f"{whole_pattern}/.*", f"{whole_text}/{{path}}", (route, endpoint))
            else:
                template = Template(whole_pattern, whole_text, (route, endpoint))
            self._all.append(template)
            known = (
                route,
                endpoint,
                getattr(route, "route", None),
                getattr(route, "original_route", None),
                getattr(getattr(route, "_route_context", None), "starlette_route", None),
            )
            for key in {id(part) for part in known if part is not None}:
                self._by_id.setdefault(key, []).append(template)


def _pattern(path: str) -> str:
    """A regular expression for a path with parameters, like `/items/{item_id:int}`."""
    parts, end = [], 0
    for match in PARAM_REGEX.finditer(path):
        convertor = CONVERTOR_TYPES[(match[2] or ":str").removeprefix(":")]
        parts += [re.escape(path[end : match.start()]), f"(?:{convertor.regex})"]
        end = match.end()
    return "".join(parts) + re.escape(path[end:])
