"""What a process that tests kill does while a server is killed, too."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

from saga_engine.errors import BrokerUnavailable
from tests.kit.programs import sleep

_RESTART_DELAY = 0.1  # Seconds; a supervisor waits, too.


class Running(Protocol):
    """What a process runs."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until *stop* is set."""


async def run_supervised(opened: Callable[[], AbstractAsyncContextManager[Running]]) -> None:
    """Run until killed; start again while a server does, as a supervisor would."""
    while True:
        with suppress(BrokerUnavailable):
            async with opened() as running:
                await running.run(asyncio.Event())
        await sleep(_RESTART_DELAY)
