# SPDX-License-Identifier: Apache-2.0
"""The values of prometheus_client's metrics, kept in the storage.

prometheus_client creates one value object per number and uses no other interface: new_value() replaces its own class.
"""

import math
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence, Sized
from typing import Any

from prometheus_client.samples import Exemplar

from .cells import storage
from .gil import LOCK, locked
from .layout import SCRATCH
from .schema import Family


class Value:
    """A number of prometheus_client's metrics."""

    __slots__ = ("_cell",)

    def __init__(self, cell: int = SCRATCH) -> None:
        self._cell = cell

    def inc(self, amount: float) -> None:
        amount = float(amount)  # first: no code of the caller may run between the load and the store
        if LOCK is None:
            storage.cells[self._cell] += amount
        else:
            with LOCK:
                storage.cells[self._cell] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        cells = storage.cells
        cells[self._cell] = value
        if timestamp is not None:
            cells[self._cell - 1] = timestamp

    # The same as plain functions, at half the cost. They keep a reference to the value, so that its cell is not reused.

    def adder(self) -> Callable[[float], None]:
        """inc() for floats."""
        if LOCK is not None:
            return self.inc

        def add(amount: float) -> None:
            storage.cells[self._cell] += amount

        return add

    def observer(self, bounds: Sequence[float]) -> Callable[[float], None]:
        """observe() of the histogram whose sum this is, for floats; `bounds` are those of its buckets, with +Inf."""

        def observe(amount: float) -> None:
            cells, cell = storage.cells, self._cell
            cells[cell] += amount
            cells[cell + 1 + bisect_left(bounds, amount)] += 1.0

        return observe if LOCK is None else locked(observe)

    def sizes_with(self, other: "Value", part: Sized, whole: Sized) -> Callable[[], None]:
        """set() of this gauge to the size of `part`, and of another one to that of the rest of `whole`.

        Other threads may add and remove meanwhile, so it checks after setting whether the sizes are still right.
        """

        def set_both() -> None:
            cells = storage.cells
            while True:
                size, of = len(part), len(whole)
                cells[self._cell] = size + 0.0  # not float(), which is a call
                cells[other._cell] = of - size + 0.0
                if size == len(part) and of == len(whole):
                    return

        return set_both

    def get(self) -> float:
        return 0.0 if self._cell == SCRATCH else float(storage.cells[self._cell])

    def set_exemplar(self, exemplar: Exemplar) -> None:
        storage.write_exemplar(self._cell, exemplar.labels, exemplar.value, float(exemplar.timestamp or 0))

    def get_exemplar(self) -> Exemplar | None:
        return storage.read_exemplar(self._cell)


class _FirstValue(Value):
    """The first number of a group; when prometheus_client deletes it, the group is removed."""

    __slots__ = ("_group",)

    _group: tuple[Family, tuple[str, ...], int | None] | None

    def __init__(self) -> None:
        super().__init__()
        self._group = None

    def bind(self, rest: Sequence[Value], family: Family, labelvalues: tuple[str, ...]) -> "_FirstValue":
        start = storage.own(family, labelvalues, alone=True)
        self._group = family, labelvalues, start
        if start is not None:
            for offset, value in enumerate((self, *rest), start + 1):
                value._cell = offset
        return self

    def __del__(self, finalizing: Any = sys.is_finalizing) -> None:
        # Not when the process ends: its counts stay.
        if self._group is not None and not finalizing():
            storage.disown(*self._group)


# Summaries and histograms are created one number at a time, within one call of labels(): first value, bounds, others.
_unfinished: dict[tuple[Any, ...], tuple[_FirstValue, list[float], list[Value]]] = {}


def new_value(
    type_: str,
    metric: str,
    sample: str,
    labelnames: Sequence[str],
    labelvalues: Sequence[str],
    help_: str,
    multiprocess_mode: str = "",
    **_: Any,
) -> Value:
    """The value object of a number; called by prometheus_client."""
    names, values = tuple(labelnames), tuple(labelvalues)
    if type_ in ("counter", "gauge"):
        return _FirstValue().bind((), storage.family(type_, metric, help_, names, (), multiprocess_mode), values)
    key = threading.get_ident(), metric, values[:-1] if sample.endswith("_bucket") else values
    if key not in _unfinished:
        first = _FirstValue()
        _unfinished[key] = first, [], []
        return first
    first, bounds, rest = _unfinished[key]
    rest.append(Value())
    bound = float(values[-1]) if type_ == "histogram" else math.inf
    if bound < math.inf:
        bounds.append(bound)
    else:
        del _unfinished[key]
        names = names[:-1] if type_ == "histogram" else names
        first.bind(rest, storage.family(type_, metric, help_, names, bounds), key[2])
    return rest[-1]
