"""Who the client is behind HAProxy: what the proxy saw, whatever a client claims and wherever it comes from."""

from __future__ import annotations

import httpx2

from tests.servers import Postgres, app, proxy

LIMIT = 3


def sign_ups(url: str, source: str, **headers: str) -> list[int]:
    """The answers to one more sign-up than one client may make within a minute, from this address."""
    with httpx2.Client(base_url=url, timeout=60, transport=httpx2.HTTPTransport(local_address=source)) as client:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return [client.post("/users", json={"name": "x"}, headers=given).status_code for _ in range(LIMIT + 1)]


def test_clients_behind_the_proxy_have_a_limit_each(postgres: Postgres) -> None:
    environment = postgres.environment(postgres.create_database())
    # localhost: the addresses of the name are asked for; as `proxy` in Docker. An unknown name does no harm.
    trusted = {"APP_PROXIES": "no-such-proxy.invalid, localhost", "APP_SIGN_UPS_PER_MINUTE": str(LIMIT)}
    limited = [201] * LIMIT + [429]
    with app({**environment, **trusted}) as service, proxy(service) as (_, url):
        assert sign_ups(url, "127.0.0.2") == limited
        assert sign_ups(url, "127.0.0.3") == limited
        assert sign_ups(url, "127.0.0.3", X_Forwarded_For="192.0.2.1") == [429] * (LIMIT + 1), "a claim counts"
        # Not through the proxy: what this one forwards is its own affair.
        assert sign_ups(service.url, "127.0.0.4", X_Forwarded_For="192.0.2.2") == limited
        assert sign_ups(service.url, "127.0.0.4", X_Forwarded_For="192.0.2.3") == [429] * (LIMIT + 1)


def test_without_trusted_proxies_headers_are_ignored(postgres: Postgres) -> None:
    environment = postgres.environment(postgres.create_database())
    with app({**environment, "APP_SIGN_UPS_PER_MINUTE": str(LIMIT)}) as service:
        assert sign_ups(service.url, "127.0.0.1", X_Forwarded_For="192.0.2.1") == [201] * LIMIT + [429]
        assert sign_ups(service.url, "127.0.0.1", X_Forwarded_For="192.0.2.2") == [429] * (LIMIT + 1)
