"""Active users of the reference service over several replicas."""

from __future__ import annotations

from pathlib import Path

import httpx2

from tests import servers
from tests.running import wait_until
from tests.servers import Postgres


def test_users_of_another_replica_are_counted(postgres: Postgres, tmp_path: Path) -> None:
    """By the service's settings, with a store that both reach."""
    (tmp_path / "key").write_text("a secret of every replica")
    with servers.valkey() as valkey:
        environment = {
            **postgres.environment(postgres.create_database()),
            "APP_WORKERS": "2",
            "ACTIVE_USERS_STORE": valkey.url,
            "ACTIVE_USERS_STORE_PASSWORD_FILE": str(valkey.password_file),
            "ACTIVE_USERS_KEY_FILE": str(tmp_path / "key"),
        }
        with servers.app(environment) as one, servers.app(environment) as other:
            for app, name in ((one, "ada"), (other, "grace")):
                key = httpx2.post(f"{app.url}/users", json={"name": name}, timeout=60).json()["api_key"]
                assert (
                    httpx2.get(f"{app.url}/items", headers={"Authorization": f"Bearer {key}"}, timeout=60).status_code
                    == 200
                )

            def both() -> bool:
                texts = [httpx2.get(f"{app.url}/metrics", timeout=60).text for app in (one, other)]
                return all('active_users{window="1h"} 2.0' in text for text in texts)

            wait_until(both)
            assert "active_users_store_up 1.0" in httpx2.get(f"{one.url}/metrics", timeout=60).text
