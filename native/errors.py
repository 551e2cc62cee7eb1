"""What reaches the user in one line that says what is wrong and what to do."""


class NativeError(Exception):
    """Something the user can put right; printed without a traceback, exit code 1."""


def refusal(error: OSError) -> str:
    """What the operating system refused: a full disk, a folder of somebody else, a file where a folder should be."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
