"""Placeholder for Grafana where its image can't be had. It draws nothing.

It reads the real provisioning files and dashboards as Grafana would, refuses to start on a broken one, asks for the
administrator's password and passes data source queries on. Answers: /api/health, /api/datasources, /api/search,
/api/dashboards/uid/<uid>, /api/datasources/proxy/uid/<uid>/..., /metrics.
"""

from __future__ import annotations

import base64
import hmac
import http.server
import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

PROVISIONING = Path(os.environ.get("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning"))
PROXY = "/api/datasources/proxy/uid/"


class BrokenError(Exception):
    """A file that Grafana would refuse; the message names it."""


def documents(kind: str) -> list[dict[str, Any]]:
    """The provisioning files of a kind, environment variables filled in."""
    found = []
    for file in sorted((PROVISIONING / kind).glob("*.y*ml")):
        document = yaml.safe_load(os.path.expandvars(file.read_text()))
        if not isinstance(document, dict) or document.get("apiVersion") != 1:
            raise BrokenError(f"{file}: no provisioning file of apiVersion 1")
        found.append(document)
    return found


def read_datasources() -> dict[str, dict[str, Any]]:
    """Data sources by uid."""
    sources = [source for document in documents("datasources") for source in document.get("datasources", [])]
    for source in sources:
        for key in ("name", "uid", "type", "url"):
            if not source.get(key):
                raise BrokenError(f"data source {source.get('name')}: no {key}")
        if not re.fullmatch(r"https?://[^/$]+(/.*)?", source["url"]):
            raise BrokenError(f"data source {source['name']}: {source['url']} is no address")
    if sum(bool(source.get("isDefault")) for source in sources) > 1:
        raise BrokenError("more than one default data source")
    return unique(sources, "uid")


def read_dashboards() -> dict[str, dict[str, Any]]:
    """Dashboards by uid, from the folders that the providers name."""
    dashboards = []
    for document in documents("dashboards"):
        for provider in document["providers"]:
            folder = Path(provider["options"]["path"])
            if not folder.is_dir():
                raise BrokenError(f"dashboard provider {provider['name']}: there is no folder {folder}")
            for file in sorted(folder.rglob("*.json")):
                try:
                    dashboard = json.loads(file.read_text())
                except ValueError as error:
                    raise BrokenError(f"{file}: {error}") from error
                for key in ("uid", "title", "schemaVersion", "panels"):
                    if not dashboard.get(key):
                        raise BrokenError(f"{file}: no {key}")
                if re.search(r"\$\{DS_", file.read_text()) or "__inputs" in dashboard:
                    raise BrokenError(f"{file}: exported for import; provisioning does not fill in its inputs")
                dashboards.append(dashboard)
    home = os.environ.get("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH")
    if home and not Path(home).is_file():
        raise BrokenError(f"the home dashboard {home} does not exist")
    unique(dashboards, "title")
    return unique(dashboards, "uid")


def unique(things: list[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    by_key: dict[str, dict[str, Any]] = {}
    for thing in things:
        if thing[key] in by_key:
            raise BrokenError(f"{key} {thing[key]} occurs twice")
        by_key[thing[key]] = thing
    return by_key


def password() -> str:
    file = os.environ.get("GF_SECURITY_ADMIN_PASSWORD__FILE")
    if not file:
        raise BrokenError("no GF_SECURITY_ADMIN_PASSWORD__FILE: this placeholder has no default password")
    return Path(file).read_text().strip()


class Handler(http.server.BaseHTTPRequestHandler):
    datasources: dict[str, dict[str, Any]]
    dashboards: dict[str, dict[str, Any]]
    authorization: str

    def do_GET(self) -> None:
        if self.path == "/api/health":
            self.answer(200, {"database": "ok", "version": "placeholder"})
        elif self.path == "/metrics":
            self.answer(200, f"grafana_stat_totals_dashboard {len(self.dashboards)}\n")
        elif not hmac.compare_digest(self.headers.get("Authorization", ""), self.authorization):
            self.answer(401, {"message": "Unauthorized"})
        elif self.path == "/api/datasources":
            self.answer(200, list(self.datasources.values()))
        elif self.path.startswith("/api/search"):
            self.answer(200, [{"uid": uid, "title": one["title"]} for uid, one in self.dashboards.items()])
        elif self.path.startswith("/api/dashboards/uid/"):
            dashboard = self.dashboards.get(self.path.rpartition("/")[2])
            self.answer(200 if dashboard else 404, {"dashboard": dashboard})
        elif self.path.startswith(PROXY):
            self.proxy(*self.path.removeprefix(PROXY).partition("/")[::2])
        else:
            self.answer(404, {"message": "this is a placeholder for Grafana"})

    def proxy(self, uid: str, path: str) -> None:
        if uid not in self.datasources:
            self.answer(404, {"message": f"no data source {uid}"})
            return
        try:
            with urllib.request.urlopen(f"{self.datasources[uid]['url'].rstrip('/')}/{path}", timeout=10) as response:  # noqa: S310
                self.answer(response.status, json.load(response))
        except urllib.error.HTTPError as error:
            self.answer(error.code, {"message": error.read().decode(errors="replace")})
        except (OSError, ValueError) as error:
            self.answer(502, {"message": str(error)})

    def answer(self, code: int, body: object) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class' name
        """Requests are not worth a line."""


def main() -> None:
    try:
        Handler.datasources, Handler.dashboards = read_datasources(), read_dashboards()
        Handler.authorization = "Basic " + base64.b64encode(f"admin:{password()}".encode()).decode()
    except (BrokenError, OSError, yaml.YAMLError) as error:
        sys.exit(f"Cannot provision: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"provisioned {len(Handler.datasources)} data sources and {len(Handler.dashboards)} dashboards", flush=True)
    http.server.ThreadingHTTPServer(("", 3000), Handler).serve_forever()


if __name__ == "__main__":
    main()
