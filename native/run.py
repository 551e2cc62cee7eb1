"""`python -m native.run promtool check config ...`: a program of the servers, unpacked first where it is missing."""

from __future__ import annotations

import os
import sys

from native.errors import NativeError
from native.packages import POSTGRES, PROGRAMS, find


def main(arguments: list[str]) -> int:
    """Becomes the program; comes back only if that fails."""
    if not arguments or arguments[0] not in (*PROGRAMS, *POSTGRES):
        print(f"usage: python -m native.run PROGRAM ...\nPROGRAM: {', '.join((*PROGRAMS, *POSTGRES))}", file=sys.stderr)
        return 2
    try:
        os.execv(find(arguments[0])[arguments[0]], arguments)
    except NativeError as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
