"""A resource is closed in the reverse order of its opening, also if opening fails halfway."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from saga_engine.errors import InvalidInput
from saga_engine.lifecycle import AsyncResource


class RecordingResource(AsyncResource):
    """Opens `first` and `second`, and records what happens."""

    def __init__(self, *, fails: bool = False) -> None:
        self.record: list[str] = []
        self._fails = fails

    @asynccontextmanager
    async def _part(self, name: str):
        self.record.append(f"open {name}")
        try:
            yield
        finally:
            self.record.append(f"close {name}")

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._part("first"))
        if self._fails:
            raise LookupError
        await resources.enter_async_context(self._part("second"))


class RunningResource(AsyncResource):
    """Has a task group, which wraps the exceptions that it sees."""

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(asyncio.TaskGroup())


async def test_what_was_opened_is_closed_in_reverse_order():
    async with RecordingResource() as resource:
        assert resource.record == ["open first", "open second"]
    assert resource.record[2:] == ["close second", "close first"]


async def test_what_was_opened_is_closed_if_opening_fails():
    resource = RecordingResource(fails=True)
    with pytest.raises(LookupError):
        async with resource:
            pass
    assert resource.record == ["open first", "close first"]


async def test_a_resource_is_used_only_while_it_is_open():
    resource = RecordingResource()
    with pytest.raises(InvalidInput, match="is not open"):
        resource.require_open()
    async with resource:
        resource.require_open()
    with pytest.raises(InvalidInput, match="RecordingResource is not open"):
        resource.require_open()


async def test_an_exception_of_the_block_is_raised_as_it_is():
    with pytest.raises(KeyError):
        async with RunningResource():
            raise KeyError
