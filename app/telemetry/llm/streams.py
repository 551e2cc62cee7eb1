# SPDX-License-Identifier: Apache-2.0
"""A stream that can be read with `for` and with `async for`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any


class TwoWayStream:
    """Sync or async, decided at its first use, like the stream that it wraps."""

    def __init__(self, sync: Callable[[], Iterator[Any]], asynchronous: Callable[[], AsyncIterator[Any]]) -> None:
        self._make_sync = sync
        self._make_async = asynchronous
        self._sync: Any = None
        self._async: Any = None

    def __iter__(self) -> Iterator[Any]:
        if self._sync is None:
            self._sync = self._make_sync()
        return self._sync  # type: ignore[no-any-return]

    def __next__(self) -> Any:
        return next(iter(self))

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._async is None:
            self._async = self._make_async()
        return self._async  # type: ignore[no-any-return]

    async def __anext__(self) -> Any:
        return await anext(aiter(self))

    def close(self) -> None:
        """Close the synchronous iterator."""
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """Close the asynchronous iterator."""
        if self._async is not None:
            await self._async.aclose()
