# SPDX-License-Identifier: Apache-2.0
"""The pools of psycopg_pool and asyncpg, for services without SQLAlchemy: connections, waits, and queries by name.

    pool = instrument_pool(ConnectionPool(...), "main", query_names=("list_items",))     # or AsyncConnectionPool
    pool = instrument_pool(await asyncpg.create_pool(...), "main", query_names=("list_items",))

    with query_name("list_items"):                          # optional: names the query
        rows = await connection.fetch("SELECT ...")

The metrics are those of metrics.py; give each pool of a process a different name. Differences from an engine:

- Not counted: transactions, which neither driver reports; prepared statements of asyncpg; COPY; server-side cursors;
  psycopg's stream(). In psycopg's pipeline mode a query is timed until it is queued, and an error that is raised only
  at the end of the pipeline is not counted.
- The checkout wait is the time until a connection was available. psycopg_pool opens connections in the background, so
  it includes opening one; with asyncpg it does not.
- The gauges are updated at each checkout and return; idle connections that open or close in between show later.
- asyncpg's BEGIN and COMMIT are queries (`OTHER`); the statements it sends when a connection is returned are not
  counted.

    measure    shared by both drivers        psycopg, asyncpg    how the pools of each are measured
"""

from collections.abc import Iterable
from typing import TypeVar

from .asyncpg import measure_asyncpg
from .measure import Measure, query_name
from .psycopg import measure_psycopg

__all__ = ["instrument_pool", "query_name"]

Pool = TypeVar("Pool")


def instrument_pool(pool: Pool, name: str = "main", query_names: Iterable[str] = ()) -> Pool:
    """Measure a pool from now on, and return it.

    Args:
        pool: of psycopg_pool, or of asyncpg; the latter must be initialised: `await create_pool()`.
        name: the label `pool`.
        query_names: the allowed values of the label `query_name`; all other queries are `other`.

    Raises:
        TypeError: `pool` is not such a pool, or `query_names` is a single string.
    """
    if isinstance(query_names, str):  # otherwise its letters would be the names
        raise TypeError(f"query_names must be a list of names, such as ({query_names!r},)")
    packages = {cls.__module__.partition(".")[0] for cls in type(pool).__mro__}
    measure = measure_psycopg if "psycopg_pool" in packages else measure_asyncpg if "asyncpg" in packages else None
    if measure is None:
        raise TypeError(f"expected a pool of psycopg_pool or asyncpg, not a {type(pool).__name__}")
    if not hasattr(pool, "_sightline_measure"):
        measure(pool, Measure(name, frozenset(query_names)))
    return pool
