"""Two Prometheus and two Alertmanagers, as in docker-compose.ha.yml: each alert is notified once, whichever dies."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ops import configs, secrets
from ops.servers import HOST
from tests import servers
from tests.alertmanager.config import Json, switched_on
from tests.alertmanager.delivery import impatient, receiver
from tests.running import free_port, wait_until
from tests.servers import Alertmanager, Prometheus

PEER_TIMEOUT = 15  # seconds that the second Alertmanager waits for the first; Alertmanager's default
RULES = """
groups:
  - name: test
    rules:
      - {alert: Down, expr: 'up{job="app"} == 0', labels: {severity: warning, area: monitoring}}
"""


class Pairs:
    """Both of each, on one configuration; an alert fires for each target in `down`."""

    def __init__(self, folder: Path, hook: str) -> None:
        self.folder = folder
        self.gossip = [free_port(), free_port()]
        self.exits: list[ExitStack] = [ExitStack(), ExitStack()]
        self.alertmanagers: dict[int, Alertmanager] = {}
        self.prometheis: dict[int, Prometheus] = {}
        self.alertmanager_folder = folder / "alertmanager"
        self.alertmanager_folder.mkdir()
        impatient(switched_on('severity="warning"', "webhook"), self.alertmanager_folder, {"webhook_url": hook})
        secrets.generate(folder / "secrets")
        self.config = configs.link("prometheus", folder / "prometheus", folder / "secrets")
        servers.faster(self.config)
        file = self.config / "prometheus.yml"
        file.write_text(file.read_text().replace("rules/*.yml", "test.yml"))
        (self.config / "test.yml").write_text(RULES)
        configs.write_targets(self.config, {})

    def start(self, number: int) -> None:
        """The Alertmanager and the Prometheus of this number, with nothing that they remember."""
        listen = f"--cluster.listen-address={HOST}:{self.gossip[number]}"
        peer = f"--cluster.peer={HOST}:{self.gossip[1 - number]}"
        enter = self.exits[number].enter_context
        self.alertmanagers[number] = enter(servers.alertmanager(self.alertmanager_folder, (listen, peer)))
        self._write("alertmanager", [{"targets": [f"{HOST}:{one.port}" for one in self.alertmanagers.values()]}])
        self.prometheis[number] = enter(servers.prometheus(self.config / "prometheus.yml"))

    def kill(self, number: int) -> None:
        for running in (self.prometheis.pop(number), self.alertmanagers.pop(number)):
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        self.exits[number].close()

    def down(self, *names: str) -> None:
        self._write("app", [{"targets": [f"{HOST}:1"], "labels": {"instance": name}} for name in names])

    def _write(self, job: str, entries: list[Json]) -> None:
        """As a whole: Prometheus reads it at any time."""
        new = self.folder / "new.json"
        new.write_text(json.dumps(entries))
        new.replace(self.config / "targets" / f"{job}.yml")

    def propagated(self, number: int) -> float:
        """The number of notifications that this Alertmanager has received from the other one by gossip."""
        with urllib.request.urlopen(f"{self.alertmanagers[number].url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found = re.search(r"^alertmanager_nflog_gossip_messages_propagated_total (\S+)$", text, re.MULTILINE)
        assert found
        return float(found[1])

    def members(self) -> list[int]:
        """How many Alertmanagers each one that runs gossips with."""
        return [one.members() for one in self.alertmanagers.values()]


@contextmanager
def pairs(folder: Path, hook: str) -> Iterator[Pairs]:
    made = Pairs(folder, hook)
    try:
        for number in (0, 1):
            made.start(number)
        yield made
    finally:
        for exits in made.exits:
            exits.close()


def test_each_alert_is_notified_once_also_while_one_of_each_is_killed(tmp_path: Path) -> None:
    with receiver() as (hook, got), pairs(tmp_path, hook) as both:

        def notices() -> Counter[tuple[str, str]]:
            """(instance, firing or resolved) -> how often it was news. A message names what it named before, too."""
            found: Counter[tuple[str, str]] = Counter()
            for message in got:
                found.update((alert["labels"]["instance"], alert["status"]) for alert in message["alerts"])
            return found

        def firing(name: str) -> bool:
            return notices()[name, "firing"] > 0

        wait_until(lambda: both.members() == [2, 2])
        both.down("a", "b")
        wait_until(lambda: firing("a") and firing("b"))
        # Killed before its next gossip, 0.2 s after a notification, the other one would send that again.
        wait_until(lambda: both.propagated(1) >= len("ab"))

        both.kill(0)  # the one that has notified: the other one was waiting for it
        both.down("a", "b", "c")
        wait_until(lambda: firing("c"))

        both.start(0)
        wait_until(lambda: both.members() == [2, 2])
        known = both.propagated(0)
        both.down("a", "b", "c", "d")
        wait_until(lambda: firing("d") and both.propagated(0) > known)
        # What a Prometheus has never seen firing it does not resolve.
        wait_until(lambda: len(both.prometheis[0].query('ALERTS{alertstate="firing"}')) == len("abcd"))
        both.kill(1)
        both.down("b", "c", "d", "e")
        wait_until(lambda: firing("e") and notices()["a", "resolved"])
        time.sleep(PEER_TIMEOUT + 5)  # and nothing comes late
        assert notices() == Counter({**{(name, "firing"): 1 for name in "abcde"}, ("a", "resolved"): 1})
