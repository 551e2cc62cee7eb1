# SPDX-License-Identifier: Apache-2.0
"""Series for which there is no space in the shared folder: in the worker's memory, in cells beyond the file's."""

from typing import Any

from .layout import CELLS


class Spilled:
    """The doubles of a worker after its folder was full: a few times slower, as every access is a function call."""

    def __init__(self, shared: Any, private: list[float] | None = None) -> None:
        self.shared = shared
        self.private = [] if private is None else private

    def add(self, width: int) -> int:
        """The first cell of a new group."""
        start = CELLS + len(self.private)
        self.private.extend([0.0] * width)
        return start

    def __getitem__(self, cell: int) -> float:
        if cell < CELLS:
            return float(self.shared[cell])
        return self.private[cell - CELLS]

    def __setitem__(self, cell: int, value: float) -> None:
        if cell < CELLS:
            self.shared[cell] = value
        else:
            self.private[cell - CELLS] = value

    def numbers(self, start: int, end: int) -> list[float]:
        return self.private[start - CELLS : end - CELLS]
