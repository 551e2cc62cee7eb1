"""Business metrics: what the service does for its users, all in one place.

CONTRIBUTING.md, "A business metric", shows how to add one.
"""

from __future__ import annotations

from prometheus_client import Counter

import app.telemetry  # noqa: F401  before any metric exists: all workers share its value

items_created = Counter("app_items_created_total", "Items created and stored.")
