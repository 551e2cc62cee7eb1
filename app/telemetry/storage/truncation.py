# SPDX-License-Identifier: Apache-2.0
"""Files that are truncated while they are mapped: `> worker-0`, a copy over one, a clean-up of a temporary folder.

The next load or store beyond the new end would end the process with SIGBUS. A signal handler extends the file to its
size again, filled with zeros, and the instruction is repeated: the counts are lost, the worker survives. A fault
anywhere else ends the process as usual. The handler is a C function (ctypes), because Python's own handlers run only
after the instruction, which would fault again and again. It runs in the thread that holds the interpreter, in a load or
store of a few bytes.
"""

import ctypes
import os
import signal

_guarded: dict[int, int] = {}  # descriptors of mapped files: their sizes
_repaired: set[int] = set()
_handler: object = None  # must live as long as the process


def guard(fd: int, size: int) -> None:
    """Extend a mapped file to this size again whenever it is truncated."""
    _guarded[fd] = size
    _install()


def forget(fd: int) -> None:
    _guarded.pop(fd, None)
    _repaired.discard(fd)


def repaired(fd: int) -> bool:
    """Whether a file was truncated and has been extended again, now or before; True once for each time."""
    _repair(fd)
    if fd in _repaired:
        _repaired.discard(fd)
        return True
    return False


def _repair(fd: int) -> bool:
    try:
        if os.fstat(fd).st_size >= _guarded[fd]:
            return False
        os.ftruncate(fd, _guarded[fd])
    except (OSError, KeyError):
        return False
    _repaired.add(fd)
    return True


def _install() -> None:
    global _handler
    if _handler is not None or not hasattr(signal, "SIGBUS"):
        return
    signal_type = ctypes.CFUNCTYPE(None, ctypes.c_int)
    c_signal = ctypes.CDLL(None).signal
    c_signal.argtypes, c_signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p

    def on_fault(number: int) -> None:
        if not any(_repair(fd) for fd in list(_guarded)):
            c_signal(number, previous)  # not ours: again, with whatever handled it before

    _handler = signal_type(on_fault)
    previous = c_signal(signal.SIGBUS, ctypes.cast(_handler, ctypes.c_void_p))
