"""What `make psql` is in both modes: psql as the database's superuser, for a person who types or for what comes in.

Standard library only: Docker mode does the same.
"""

from __future__ import annotations

NO_DATABASE = "PostgreSQL does not run; `make up` starts it."


def options(terminal: bool) -> tuple[str, ...]:
    """Options of psql; a script ends at its first error, and nothing of a person's statements is kept in a history."""
    return ("--no-psqlrc", "--set=HISTFILE=/dev/null", *(() if terminal else ("--set=ON_ERROR_STOP=1",)))
