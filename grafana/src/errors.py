"""The one exception of the generator."""


class DashboardError(Exception):
    """What is wrong with a dashboard's source, in one sentence that says what to change."""
