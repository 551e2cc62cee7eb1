"""Which drills there are, in which order, and which of them send no notification."""

from __future__ import annotations

from ops.drills.plan import load_plan

PLAN = load_plan()
# The drills that no user notices: no request fails. Answers may be slow even so, as the machine is shared.
UNFELT = {
    "alertmanager-config-broken",
    "alertmanager-down",
    "alertmanager-lost",
    "cold-cache",
    "config-broken",
    "disk-full",
    "exporter-rights",
    "filesystem-read-only",
    "flapping",
    "host-exporter-down",
    "inodes-used-up",
    "llm-unpriced",
    "long-transaction",
    "metrics-lost",
    "open-files",
    "out-of-memory",
    "receiver-down",
    "rule-broken",
    "rules-heavy",
    "scrape-config-lost",
    "scrape-limit",
    "target-vanished",
}
# Those whose alerts resolve late come first, and those that add nothing to what has to resolve last. Before all others
# the exceptions, too few for a page: a paged outage mutes their alert.
FIRST = ["exceptions", "errors", "slow", "load-high"]
NAMES = FIRST + sorted(PLAN.drills.keys() - set(FIRST), key=lambda name: (name in UNFELT, name))
