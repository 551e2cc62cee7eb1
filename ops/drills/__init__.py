"""Incident drills: a real fault in the running stack, watched from its cause to the resolved alert."""
