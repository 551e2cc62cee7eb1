"""Telemetry to copy into a service: HTTP, database, LLM and active users, for one process or many.

The storage is installed before any metric exists; the rest of the package defines its metrics with prometheus_client.
"""

from . import exposition

exposition.install()
