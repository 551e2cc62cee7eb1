"""The one exception of the generator."""


class DashboardError(Exception):
    """An error in a dashboard's source; the message is one sentence with what to change."""
