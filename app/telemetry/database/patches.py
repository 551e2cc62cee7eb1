# SPDX-License-Identifier: Apache-2.0
"""Wrappers around methods of live objects, and event listeners; all of them can be removed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event


class Patches:
    def __init__(self) -> None:
        self._methods: list[tuple[Any, str, Any, Any]] = []  # object, name, our function, the previous attribute
        self._listeners: list[tuple[Any, str, Callable[..., Any]]] = []

    def put(self, target: Any, name: str, function: Callable[..., Any]) -> None:
        # Without using the object's __dict__, which would slow down access to its attributes from then on.
        before = getattr(target, name)
        if getattr(before, "__func__", before) is getattr(type(target), name, None):
            before = None  # it belongs to the class
        self._methods.append((target, name, function, before))
        setattr(target, name, function)

    def listen(self, target: Any, name: str, listener: Callable[..., Any]) -> None:
        event.listen(target, name, listener)
        self._listeners.append((target, name, listener))

    def forget(self, target: Any) -> None:
        """Do not undo patches of this object, which is no longer used."""
        self._methods = [method for method in self._methods if method[0] is not target]

    def undo(self) -> None:
        """Remove all patches, except those that other code has wrapped since."""
        for target, name, listener in self._listeners:
            if event.contains(target, name, listener):
                event.remove(target, name, listener)
        for target, name, function, before in reversed(self._methods):
            if getattr(target, name) is function:
                if before is None:
                    delattr(target, name)
                else:
                    setattr(target, name, before)
        self._listeners.clear()
        self._methods.clear()
