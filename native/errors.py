"""The one exception that reaches the user: its text says what is wrong and what to do, in one line."""


class NativeError(Exception):
    """Something the user can put right; printed without a traceback, exit code 1."""
