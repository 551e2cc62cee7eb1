"""Placeholder for Grafana where its image can't be had. It draws nothing.

It reads the real provisioning files and dashboards as Grafana would, refuses to start on a broken one, asks for the
administrator's password and passes data source queries on. Answers: /api/health, /api/datasources, /api/search,
/api/dashboards/uid/<uid>, /api/datasources/proxy/uid/<uid>/..., /metrics.

Like Grafana it keeps the password in a database of its own: the configured one counts at the first start only, later
`grafana cli admin reset-admin-password --password-from-stdin` changes it.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import http.server
import json
import os
import re
import secrets
import signal
import sqlite3
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


def setting(name: str) -> str:
    """A setting of the environment; `$__file{...}` stands for what is in the file."""
    value = os.environ.get(name, "")
    expanded = re.sub(r"\$__file\{([^}]+)\}", lambda match: Path(match[1]).read_text().strip(), value)
    if not expanded:
        raise BrokenError(f"no {name}: this placeholder has no default")
    return expanded


def digest(password: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 1000).hex()


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(Path(os.environ.get("GF_PATHS_DATA", "/var/lib/grafana"), "grafana.db"))
    connection.execute("CREATE TABLE IF NOT EXISTS user (login TEXT PRIMARY KEY, salt TEXT, password TEXT)")
    return connection


def set_password(password: str, verb: str) -> None:
    salt = secrets.token_hex(8)
    with database() as connection:
        row = ("admin", salt, digest(password, salt))
        connection.execute(f"INSERT OR {verb} INTO user VALUES (?, ?, ?)", row)


def is_administrator(authorization: str) -> bool:
    try:
        login, _, password = (
            base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode().partition(":")
        )
    except (binascii.Error, UnicodeDecodeError):
        return False
    row = database().execute("SELECT salt, password FROM user WHERE login = ?", (login,)).fetchone()
    return row is not None and hmac.compare_digest(digest(password, row[0]), row[1])


def reset_password(arguments: list[str]) -> None:
    """What is used of Grafana's own command line, and nothing else."""
    parser = argparse.ArgumentParser(prog="grafana cli")
    parser.add_argument("--homepath", required=True)
    parser.add_argument("command", choices=["admin"])
    parser.add_argument("subcommand", choices=["reset-admin-password"])
    parser.add_argument("--password-from-stdin", action="store_true", required=True)
    parser.parse_args(arguments)
    password = sys.stdin.readline().rstrip("\n")
    if len(password) < 4:
        sys.exit("Error: the new password is too short")
    set_password(password, "REPLACE")
    print("Admin password changed successfully")


class Handler(http.server.BaseHTTPRequestHandler):
    datasources: dict[str, dict[str, Any]]
    dashboards: dict[str, dict[str, Any]]

    def do_GET(self) -> None:
        if self.path == "/api/health":
            self.answer(200, {"database": "ok", "version": "placeholder"})
        elif self.path == "/metrics":
            self.answer(200, f"grafana_stat_totals_dashboard {len(self.dashboards)}\n")
        elif not is_administrator(self.headers.get("Authorization", "")):
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
            with urllib.request.urlopen(f"{self.datasources[uid]['url'].rstrip('/')}/{path}", timeout=10) as response:
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
    if sys.argv[1:2] == ["cli"]:
        reset_password(sys.argv[2:])
        return
    try:
        Handler.datasources, Handler.dashboards = read_datasources(), read_dashboards()
        setting("GF_SECURITY_SECRET_KEY")
        set_password(setting("GF_SECURITY_ADMIN_PASSWORD"), "IGNORE")
    except (BrokenError, OSError, yaml.YAMLError) as error:
        sys.exit(f"Cannot provision: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"provisioned {len(Handler.datasources)} data sources and {len(Handler.dashboards)} dashboards", flush=True)
    http.server.ThreadingHTTPServer(("", 3000), Handler).serve_forever()


if __name__ == "__main__":
    main()
