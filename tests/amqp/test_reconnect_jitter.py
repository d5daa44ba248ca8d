"""Many processes that lose one broker at the same time do not reconnect at the same time."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise

from saga_engine.vocabulary import ConnectionState
from tests.kit.connections import open_connection, wait_until
from tests.kit.programs import sleep
from tests.kit.proxy import running_proxy

LINKS = 20
AWAY_S = 3.0


class Herd:
    """The order of retries and of reconnects, and how often a connection failed."""

    def __init__(self):
        self.tried, self.up = [], []
        self.vain = 0
        self.back = asyncio.Event()

    def look(self, number, state):
        if state.state is ConnectionState.CONNECTED and state.generation == 2:
            self.up.append(number)
        if len(self.up) == LINKS:
            self.back.set()
        if state.state is ConnectionState.CONNECTING and state.generation == 1:
            self.vain += 1
            self.tried += [number] if number not in self.tried else []


async def test_connections_lost_together_reconnect_spread_over_time(broker_url):
    """The connections do not reconnect in the order in which they retried."""
    herd, ours = (
        Herd(),
        {"broker_reconnect_backoff": 0.2, "broker_reconnect_backoff_max": 5.0},
    )  # the default values
    async with running_proxy(broker_url) as proxy, AsyncExitStack() as owned:
        for number in range(LINKS):
            look = partial(herd.look, number)
            await owned.enter_async_context(open_connection(proxy.url, observer=look, **ours))
        await proxy.refuse()
        await sleep(AWAY_S)
        assert herd.vain < 10 * LINKS, "they hardly pause"
        await wait_until(lambda: herd.vain > 4 * LINKS)
        await proxy.accept()
        async with asyncio.timeout(60):
            await herd.back.wait()
    assert len(herd.tried) == LINKS
    together = set(pairwise(herd.tried)) & set(pairwise(herd.up))
    assert len(together) <= LINKS / 2, f"{len(together)} pairs of {LINKS} connections kept together"
