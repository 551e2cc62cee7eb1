"""Fault injection for drills: each fault is switched on for a limited time, in all workers, by requests with the token.

The package is imported, and its routes exist, only if FAULTS_ENABLED=true. Each fault ends by itself.

    base.py       what a fault is: duration, and what happens while it is on
    requests.py, database.py, llm.py, machine.py    the faults
    switches.py   which faults are active, the same in all workers
    routes.py     /faults
"""

from app.faults.base import MAX_SECONDS
from app.faults.routes import add_faults, hit_by_faults
from app.faults.switches import FAULTS

__all__ = ["FAULTS", "MAX_SECONDS", "add_faults", "hit_by_faults"]
