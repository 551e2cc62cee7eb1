"""All dashboards, from general to specific."""

from __future__ import annotations

from . import overview

DASHBOARDS = (overview.DASHBOARD,)
