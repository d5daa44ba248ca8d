"""
A connection to RabbitMQ by the stream protocol, which is opened again whenever it is lost.

A node that does not answer is noticed within three heartbeats, also while there is nothing to
publish.
"""

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from random import random, randrange

from rstream import exceptions

from saga_engine.backoff import Backoff
from saga_engine.errors import BrokerError, BrokerUnavailable, ConfigurationError
from saga_engine.events.feeds.stream_address import StreamAddress
from saga_engine.events.feeds.stream_client import StreamClient, broker_errors, open_client
from saga_engine.lifecycle import AsyncResource
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole


class StreamConnection(AsyncResource):
    """
    A connection; `async with` owns it.

    Args:
        addresses: of the nodes: one after the other is tried, from a random one on.
        probed: the name of a stream, which need not exist, to ask an idle node about.
        settings: timeouts, heartbeats and delays.

    Raises:
        ConfigurationError: on entering: RabbitMQ refuses the user.
        BrokerUnavailable: on entering: no node is in reach.
    """

    def __init__(
        self, addresses: tuple[StreamAddress, ...], probed: str, settings: Settings
    ) -> None:
        self.problem: str | None = None
        self._addresses = deque(addresses)
        self._addresses.rotate(randrange(len(addresses)))  # noqa: S311 - no secret depends on it
        self._probed = probed
        self._settings = settings
        self._backoff = Backoff(
            settings.broker_reconnect_backoff, settings.broker_reconnect_backoff_max, jitter=0.5
        )
        self._client: StreamClient | None = None
        self._connected = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def _open(self, resources: AsyncExitStack) -> None:
        self._use(await self._first_client())
        await resources.enter_async_context(self._tasks)
        resources.push_async_callback(self._close)
        supervisor = self._tasks.create_task(self._supervise())
        resources.callback(supervisor.cancel)

    async def wait_connected(self) -> StreamClient:
        """Wait until the connection is open, and return its client."""
        while self._client is None or self._client.ended.done():
            self._connected.clear()
            await self._connected.wait()
        return self._client

    async def _first_client(self) -> StreamClient:
        """Try each node once."""
        for _ in range(len(self._addresses) - 1):
            try:
                return await self._open_client()
            except BrokerUnavailable:
                self._addresses.rotate(-1)
        return await self._open_client()

    async def _open_client(self) -> StreamClient:
        return await open_client(self._addresses[0], self._settings, ConnectionRole.PUBLISH)

    async def _supervise(self) -> None:
        client = await self.wait_connected()
        while True:
            reason = await self._end_of(client)
            self.problem = f"The connection to RabbitMQ was lost: {reason}."
            self._tasks.create_task(client.close())
            client = await self._reconnect()
            self._use(client)

    async def _end_of(self, client: StreamClient) -> str:
        """Wait until a client ends, and probe it meanwhile."""
        while True:
            await asyncio.wait([client.ended], timeout=self._settings.broker_heartbeat)
            if client.ended.done():
                return client.ended.result()
            try:
                with broker_errors("RabbitMQ was asked for a sign of life"):
                    async with asyncio.timeout(self._settings.broker_heartbeat):
                        await client.stream_exists(self._probed)
            except BrokerUnavailable as error:
                client.end(str(error).rstrip("."))
            except exceptions.ServerError:
                pass  # it answers

    async def _reconnect(self) -> StreamClient:
        failures = 0
        while True:
            self._addresses.rotate(-1)
            await asyncio.sleep(self._backoff.delay(failures, random()))  # noqa: S311 - no secret
            try:
                return await self._open_client()
            except (BrokerError, ConfigurationError) as error:
                self.problem = str(error)
            failures += 1

    def _use(self, client: StreamClient) -> None:
        self._client = client
        self.problem = None
        self._connected.set()

    async def _close(self) -> None:
        if self._client:
            await self._client.close()
