"""Users, items and conversations over HTTP."""

from __future__ import annotations

import re

import httpx2
import psycopg
import pytest

from app.settings import Settings
from tests.app.conftest import sign_up
from tests.running import Running, wait_until
from tests.servers import Postgres


def test_sign_up_shows_the_key_once_and_stores_its_hash(
    client: httpx2.Client, service: Running, postgres: Postgres
) -> None:
    answer = client.post("/users", json={"name": "Grace"})
    assert answer.status_code == 201
    created = answer.json()
    assert re.fullmatch(r"sl_[A-Za-z0-9_-]{43}", created["api_key"])
    me = client.get("/users/me", headers={"Authorization": f"Bearer {created['api_key']}"})
    assert me.json() == {"id": created["id"], "name": "Grace"}

    dsn = postgres.dsn(service.server.environment["DATABASE_NAME"])
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT api_key_hash, to_json(users)::text FROM users WHERE id = %s", [created["id"]])
        key_hash, everything = row.fetchone() or (b"", "")
    assert len(key_hash) == 32
    assert created["api_key"] not in everything


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer sl_wrong", "Basic c2w6c2w=", "Bearer " + "x" * 5000, b"Bearer \xff\xfe"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/users/me"), ("GET", "/items"), ("POST", "/chat")])
def test_without_a_valid_key_nothing_is_accessible(
    client: httpx2.Client, method: str, path: str, authorization: str | bytes | None
) -> None:
    headers = [("Authorization", authorization)] if authorization is not None else []
    json = {"message": "hi"} if method == "POST" else None
    answer = client.request(method, path, headers=headers, json=json)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {"detail": "A valid API key is required"}


def test_an_item_lives_and_goes(user: httpx2.Client) -> None:
    created = user.post("/items", json={"title": "Lamp", "description": "It is dark"})
    assert created.status_code == 201
    item = created.json()
    path = f"/items/{item['id']}"
    assert user.get(path).json() == item

    replaced = user.put(path, json={"title": "Lantern"}).json()
    assert (replaced["title"], replaced["description"]) == ("Lantern", "")
    assert replaced["created_at"] == item["created_at"] < replaced["updated_at"]
    assert user.get(path).json() == replaced

    assert user.delete(path).status_code == 204
    assert [user.request(method, path).status_code for method in ("GET", "DELETE")] == [404, 404]
    assert user.put(path, json={"title": "Gone"}).status_code == 404


async def test_a_failed_commit_is_not_reported_as_success(
    inside: httpx2.AsyncClient, settings: Settings, postgres: Postgres
) -> None:
    with psycopg.connect(postgres.dsn(settings.database_name)) as connection:
        connection.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'too late' USING ERRCODE = 'serialization_failure'; END $$
        """)
        connection.execute("""
            CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON items
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()
        """)
    answer = await inside.post("/items", json={"title": "Lamp"})
    assert (answer.status_code, answer.json()) == (503, {"detail": "The database is not available"})
    assert (await inside.get("/items")).json()["items"] == []


def test_users_see_only_their_own(client: httpx2.Client, user: httpx2.Client) -> None:
    item = user.post("/items", json={"title": "Mine"}).json()["id"]
    conversation = user.post("/chat", json={"message": "Mine"}).json()["conversation_id"]
    with sign_up(client) as other:
        assert other.get(f"/items/{item}").status_code == 404
        assert other.put(f"/items/{item}", json={"title": "Yours"}).status_code == 404
        assert other.delete(f"/items/{item}").status_code == 404
        assert other.get(f"/conversations/{conversation}").status_code == 404
        assert other.post("/chat", json={"message": "?", "conversation_id": conversation}).status_code == 404
        assert other.get("/items").json() == {"items": [], "next": None}
        assert other.get("/conversations").json() == {"conversations": [], "next": None}
    assert user.get(f"/items/{item}").json()["title"] == "Mine"


def test_pages_hold_every_item_once_also_while_items_come_and_go(user: httpx2.Client) -> None:
    ids = [user.post("/items", json={"title": f"Item {number}"}).json()["id"] for number in range(7)]
    seen: list[int] = []
    cursor = None
    for expected in ([0, 1, 2], [3, 4, 5], [6]):
        page = user.get("/items", params={"limit": 3} | ({"after": cursor} if cursor else {})).json()
        assert [item["id"] for item in page["items"]] == [ids[index] for index in expected]
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        user.delete(f"/items/{ids[expected[-1]]}")  # even the item that the cursor names
    assert cursor is None
    assert seen == ids


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "after=0", "after=-1", f"after={2**53}"])
def test_a_wrong_page_is_refused(user: httpx2.Client, query: str) -> None:
    answer = user.get(f"/items?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "title"),
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "nul\x00"}, "title"),
        ({"title": 1}, "title"),
        ({"title": "x", "description": None}, "description"),
        ({"title": "x", "description": "x" * 10_001}, "description"),
        ({"title": "x", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_item_is_refused_without_sending_it_back(
    user: httpx2.Client, body: dict[str, object], field: str
) -> None:
    answer = user.post("/items", json=body)
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", field]]
    assert all(problem.keys() == {"loc", "msg", "type"} for problem in answer.json()["detail"])
    assert user.get("/items").json()["items"] == []


def test_a_wrong_method_lists_the_allowed_ones(client: httpx2.Client) -> None:
    allowed = {path: client.request("PATCH", path).headers["Allow"] for path in ("/items", "/items/1", "/metrics")}
    assert allowed == {"/items": "GET, POST", "/items/1": "DELETE, GET, PUT", "/metrics": "GET, HEAD"}


def test_text_comes_back_as_it_was(user: httpx2.Client) -> None:
    text = "Zoë 🦉 \u202e\r\n\t'); DROP TABLE items;-- \\u0000 %s %(x)s"
    item = user.post("/items", json={"title": text, "description": text}).json()
    assert user.get(f"/items/{item['id']}").json()["description"] == text


def test_the_index_has_links_and_shows_that_the_llm_is_simulated(client: httpx2.Client) -> None:
    index = client.get("/").json()
    assert index["llm"]["simulated"] is True
    assert "simulator" in index["llm"]["note"]
    assert {client.get(link).status_code for link in index["links"].values()} == {200}


def test_every_response_has_the_security_headers_and_a_request_id(client: httpx2.Client) -> None:
    for answer in (
        client.get("/"),
        client.get("/nowhere"),
        client.post("/users", content=b"{"),
        client.get("/metrics"),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["Cache-Control"] == "no-store"
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("given", "kept"), [("trace-0123.abc_X", True), ("short", False), ("x" * 65, False), ("bad id 12345", False)]
)
def test_a_well_formed_request_id_is_kept_and_logged(
    client: httpx2.Client, service: Running, given: str, kept: bool
) -> None:
    answer = client.get("/users/me", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is kept
    line = f"{answer.headers['X-Request-ID']} GET /users/me 401"
    wait_until(lambda: line in service.log)


def test_the_log_has_no_secrets_and_no_forged_lines(client: httpx2.Client, service: Running) -> None:
    key = client.post("/users", json={"name": "Secretive"}).json()["api_key"]
    client.get("/items?api_key=in-the-query", headers={"Authorization": f"Bearer {key}"})
    client.get("/items/%0A2026-01-01%20INFO%20forged")
    wait_until(lambda: "/items/%0A2026-01-01%20INFO%20forged" in service.log)
    log = service.log
    assert key not in log
    assert "in-the-query" not in log
    assert "Secretive" not in log
    assert "\n2026-01-01 INFO forged" not in log
