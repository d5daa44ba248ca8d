"""Many processes that lose one broker at the same moment come back, and not at the same moment."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

from saga_engine.broker.connection import Phase
from tests.broker.links import link_to
from tests.faults.processes import lasting
from tests.proxy import proxied

LINKS = 20
AWAY_S = 3.0
WINDOW_S = 0.1


class Herd:
    """When each link came up again, and how often one tried in vain."""

    def __init__(self):
        self.up = []
        self.vain = 0
        self.back = asyncio.Event()

    def __call__(self, state):
        if state.phase is Phase.CONNECTED and state.epoch == 2:
            self.up.append(asyncio.get_running_loop().time())
        if len(self.up) == LINKS:
            self.back.set()
        self.vain += state.phase is Phase.CONNECTING


async def test_links_that_lose_their_broker_together_come_back_one_by_one(broker_url):
    herd, ours = Herd(), {"broker_backoff": 0.2, "broker_backoff_max": 5.0}  # the defaults
    async with proxied(broker_url) as proxy, AsyncExitStack() as owned:
        for _ in range(LINKS):
            await owned.enter_async_context(link_to(proxy.url, observer=herd, **ours))
        await proxy.refuse()
        await lasting(AWAY_S)
        tried = herd.vain
        await proxy.accept()
        async with asyncio.timeout(3 * ours["broker_backoff_max"]):
            await herd.back.wait()
    assert LINKS < tried < 10 * LINKS
    [(_, most)] = Counter(int(up / WINDOW_S) for up in herd.up).most_common(1)
    assert most <= LINKS / 2, f"{most} of {LINKS} came up within {WINDOW_S} s"
