"""The lines of docs/adopt.md that a service takes into its code, run as they stand there with the copied modules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.guide import adopt, blocks, section
from tests.telemetry.llm import fake_provider
from tests.telemetry.llm.fake_provider import anthropic_stream, anthropic_whole, openai_stream, openai_whole

# Runs blocks of the guide one after the other, as a module with `await` at its top would.
RUNNER = """
import ast, asyncio, inspect, json, sys
from prometheus_client import generate_latest

async def main():
    names = {"question": "Why?", "messages": [{"role": "user", "content": "Why?"}]}
    for block in json.loads(sys.stdin.read()):
        code = compile(block, "docs/adopt.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result

asyncio.run(main())
print(generate_latest().decode())
"""


def test_calls_of_models_are_counted_as_the_guide_has_them(tmp_path: Path) -> None:
    """With the official SDKs, against real protocols."""
    (tmp_path / "app").mkdir()
    assert adopt(tmp_path, "PIECES=llm", "PACKAGE=app/telemetry").returncode == 0
    with fake_provider.running() as provider:
        provider.replies = [openai_whole(), openai_stream(), anthropic_whole(), anthropic_stream()]
        keys = {f"{name}_API_KEY": "none" for name in ("OPENAI", "ANTHROPIC")}
        urls = {"OPENAI_BASE_URL": provider.openai_url, "ANTHROPIC_BASE_URL": provider.anthropic_url}
        run = subprocess.run(
            [sys.executable, "-c", RUNNER],
            input=json.dumps(blocks(section("LLM calls"), "python")),
            cwd=tmp_path,
            env={**os.environ, **keys, **urls},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert run.returncode == 0, run.stderr

    def value(name: str, **labels: str) -> float:
        wanted = [f'{label}="{text}"' for label, text in labels.items()]
        lines = [line for line in run.stdout.splitlines() if line.startswith(name) and all(w in line for w in wanted)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    # Two calls each, and what the last block counts by hand.
    assert value("llm_requests_total{", model="gpt-5-mini", outcome="success") == 2
    assert value("llm_requests_total{", model="claude-haiku-4-5", outcome="success") == 2
    assert value("llm_tokens_total{", model="gpt-5-mini", type="input") == 2 * 120 + 120
    assert value("llm_tokens_total{", model="gpt-5-mini", type="output") == 2 * 30 + 30
    assert value("llm_tokens_total{", model="claude-haiku-4-5", type="input") == 2 * 140
    assert value("llm_tokens_total{", model="claude-haiku-4-5", type="output") == 2 * 30
    assert value("llm_cost_usd_total{", model="claude-haiku-4-5") > 0
    assert value("llm_unpriced_requests_total{") == 0


def test_each_piece_is_whole_alone(tmp_path: Path) -> None:
    for piece, module in (("middleware", "http"), ("llm", "llm"), ("database", "database"), ("users", "users")):
        target = tmp_path / piece
        target.mkdir()
        assert adopt(target, f"PIECES={piece}", "PACKAGE=metrics").returncode == 0
        code = f"import metrics.{module}, sys; assert 'app' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], cwd=target, check=True)


# What a service has of its own around the guide's lines on active users; the last line signs in, and asks.
SIGNED_IN = {
    "OAuth2PasswordBearer": """
from fastapi import FastAPI
from starlette.testclient import TestClient
def verify(token): return token.removeprefix("token-of-")
{guide}
app = FastAPI()
@app.get("/me")
def me(user: Annotated[str, Depends(current_user)]) -> str: return user
client = TestClient(app)
for user in ("Ada", "Grace", "Ada"):
    client.get("/me", headers={{"Authorization": f"Bearer token-of-{{user}}"}}).raise_for_status()
assert client.get("/me").status_code == 401
""",
    "session": """
from fastapi import FastAPI, Request
from starlette.middleware.sessions import SessionMiddleware
from starlette.testclient import TestClient
app = FastAPI()
app.add_middleware(SessionMiddleware, secret_key="secret")
{guide}
@app.post("/login/{{name}}")
def login(name: str, request: Request) -> None: request.session["user_id"] = name
@app.get("/me")
def me(request: Request) -> None: pass
for user in ("Ada", "Grace"):
    client = TestClient(app)
    client.get("/me").raise_for_status()
    client.post(f"/login/{{user}}").raise_for_status()
    client.get("/me").raise_for_status()
""",
    "state": """
from fastapi import Depends, FastAPI, Request
from starlette.testclient import TestClient
app = FastAPI()
{guide}
def authenticate(request: Request) -> None: request.state.user_id = request.headers.get("user")
@app.get("/me", dependencies=[Depends(authenticate)])
def me() -> None: pass
client = TestClient(app)
for user in ("Ada", "Grace", "Ada"): client.get("/me", headers={{"user": user}}).raise_for_status()
client.get("/me").raise_for_status()
""",
}


@pytest.mark.parametrize("kind", SIGNED_IN)
def test_users_are_counted_however_they_sign_in(tmp_path: Path, kind: str) -> None:
    assert adopt(tmp_path, "PIECES=users", "PACKAGE=app/telemetry").returncode == 0
    [lines] = [block for block in blocks(section("Active users"), "python") if kind in block]
    count = "from app.telemetry.users import active_users\nassert active_users.counts()['5m'] == 2\n"
    code = SIGNED_IN[kind].format(guide=lines) + count
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("mount_first", "found"), [(True, False), (False, True)])
def test_metrics_stand_above_a_mount_at_the_root(tmp_path: Path, mount_first: bool, found: bool) -> None:
    assert adopt(tmp_path, "PIECES=middleware", "PACKAGE=app/telemetry").returncode == 0
    (tmp_path / "page").mkdir()
    mount = "app.mount('/', StaticFiles(directory='page'))\n"
    [lines] = blocks(section("Middleware"), "python")
    code = "from fastapi import FastAPI\nfrom starlette.staticfiles import StaticFiles\napp = FastAPI()\n"
    code += mount + lines if mount_first else lines + mount
    code += "from starlette.testclient import TestClient\nprint(TestClient(app).get('/metrics').status_code)\n"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == ("200\n" if found else "404\n"), run.stderr


def test_linters_leave_the_copies_alone(tmp_path: Path) -> None:
    assert adopt(tmp_path, "PACKAGE=app/telemetry").returncode == 0
    (tmp_path / "app" / "__init__.py").touch()
    use = "from app.telemetry.http import PrometheusMiddleware\n\nMIDDLEWARE = PrometheusMiddleware\n"
    (tmp_path / "app" / "main.py").write_text(use)
    [configuration] = blocks(section("Copy or install"), "toml")
    strict = '[tool.ruff.lint]\nselect = ["ALL"]\nignore = ["CPY", "D", "INP"]\n[tool.mypy]\nstrict = true\n'
    project = configuration.replace("[project]\n", '[project]\nname = "my-service"\nversion = "1"\n')
    (tmp_path / "pyproject.toml").write_text(strict + project)
    for command in (["ruff", "check"], ["mypy", "--cache-dir", str(tmp_path / "cache"), "app/main.py"]):
        lint = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True)
        assert lint.returncode == 0, lint.stdout + lint.stderr


# What a service may have of its own, in the way of many tutorials.
OWN = "from prometheus_client import Counter; Counter('http_requests_total', 'Requests.', ['path'])"
OURS = "from telemetry.http import PrometheusMiddleware"


@pytest.mark.parametrize("code", [f"{OWN}\n{OURS}", f"{OURS}\n{OWN}"])
def test_names_that_exist_already_stop_the_start_as_the_guide_says(tmp_path: Path, code: str) -> None:
    assert adopt(tmp_path, "PIECES=middleware").returncode == 0
    [message] = re.findall(r"`(Duplicated timeseries[^`]*)`", section("From another instrumentation"))
    start = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert start.returncode == 1
    assert message in start.stderr
