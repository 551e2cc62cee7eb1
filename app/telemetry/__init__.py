# SPDX-License-Identifier: Apache-2.0
"""Telemetry of a service: HTTP, database, LLM and active users, for one process or many.

    http        every request, and /metrics            llm       tokens, latency, errors, cost of model calls
    database    queries, transactions, the pool        users     how many different users were seen

    storage     the doubles behind the metrics, shared by all workers
    exposition  the text of /metrics
    install     puts the storage under prometheus_client

Importing this package installs the storage; import it before any metric is defined (see install.py).
"""

from .install import install

__all__ = ["__version__", "install"]

__version__ = "0.1.0"

install()
