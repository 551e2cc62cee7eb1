"""All dashboards, from general to specific."""

from __future__ import annotations

from . import database, host, http, llm, loadtest, monitoring, overview

DASHBOARDS = tuple(page.DASHBOARD for page in (overview, http, llm, database, host, loadtest, monitoring))
