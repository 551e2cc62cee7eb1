"""What a Docker engine changes in the machine's networking, and how to take it back.

An engine that ends leaves its chains, the policy DROP for forwarded packets, forwarding itself and its bridges.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

TABLES = ("filter", "nat", "raw", "mangle")
FORWARDING = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding"))
OURS = re.compile(r"\bDOCKER\b|\bdocker0\b|\bbr-[0-9a-f]{12}\b")
BRIDGE = re.compile(r"docker0|br-[0-9a-f]{12}")


def remember(folder: Path) -> None:
    """Note the state before the engine starts in `folder`; a note that is there already is older and stays."""
    note = folder / "network-before.json"
    if not note.exists():
        state = {
            "policies": {program: _forward_policy(program) for program in ("iptables", "ip6tables")},
            "forwarding": {str(file): file.read_text() for file in FORWARDING if file.exists()},
            "bridges": _bridges(),
        }
        note.write_text(json.dumps(state))


def restore(folder: Path) -> None:
    """Take the engine's rules, chains and bridges away and put policy and forwarding back as noted."""
    note = folder / "network-before.json"
    if not note.exists():
        return
    before = json.loads(note.read_text())
    for program, policy in before["policies"].items():
        for table in TABLES:
            _clean(program, table, policy)
    for file, value in before["forwarding"].items():
        Path(file).write_text(value)
    for bridge in set(_bridges()) - set(before["bridges"]):
        subprocess.run(["ip", "link", "delete", bridge], check=True)
    note.unlink()


def _clean(program: str, table: str, policy: str) -> None:
    saved = _save(program, table)
    rules = [line for line in saved if line.startswith("-A ") and OURS.search(line)]
    chains = [line[1:].split()[0] for line in saved if line.startswith(":DOCKER")]
    changes = [f"-D{rule[2:]}" for rule in rules if rule.split()[1] not in chains]
    changes += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
    if table == "filter" and saved:
        changes.append(f"-P FORWARD {policy}")
    if changes:
        text = "\n".join([f"*{table}", *changes, "COMMIT", ""])
        subprocess.run([f"{program}-restore", "--noflush", "--wait"], input=text, text=True, check=True)


def _save(program: str, table: str) -> list[str]:
    """The table's rules as `iptables-save` prints them; none where the kernel lacks the table."""
    result = subprocess.run([f"{program}-save", "-t", table], capture_output=True, text=True)
    return result.stdout.splitlines()


def _forward_policy(program: str) -> str:
    return next((line.split()[1] for line in _save(program, "filter") if line.startswith(":FORWARD ")), "ACCEPT")


def _bridges() -> list[str]:
    return [link.name for link in Path("/sys/class/net").iterdir() if BRIDGE.fullmatch(link.name)]
