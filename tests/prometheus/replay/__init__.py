"""Incidents, healthy days and what the rules make of them: `python -m tests.prometheus.replay`."""
