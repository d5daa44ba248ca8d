"""
A client of RabbitMQ's stream protocol: rstream's, with an end that is noticed and not repaired.

rstream is in the extra `streams`. Its `Client` speaks the protocol; its `Producer` is not used,
because it reconnects on its own and publishes buffered messages again in any order.
"""

import asyncio
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rstream import SlasMechanism, exceptions, schema
from rstream.client import Client
from rstream.connection import Connection, ConnectionClosed

from saga_engine import tls
from saga_engine.amqp.driver import CLOSE_TIMEOUT
from saga_engine.errors import BrokerUnavailable, ConfigurationError
from saga_engine.events.feeds.stream_address import PORT, TLS_PORT, StreamAddress
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole

FRAME_MAX = 134_217_728
"""Bytes: the largest setting of a body. The broker's `stream.frame_max`, 1 MiB, is the limit."""

_URL = "SAGA_ENGINE_BROKER_STREAM_URL, or SAGA_ENGINE_BROKER_URL if only that is set"
_FIX = f"Correct {_URL}."
_ERRNO = re.compile(r"\[Errno (\d+)\]")

# rstream logs each lost connection with a traceback; its end is reported as a problem of the feed.
logging.getLogger("rstream").addHandler(logging.NullHandler())


class StreamClient(Client):
    """
    One connection to one node; `open_client` opens it.

    Args:
        address: of the node.
        settings: the interval of heartbeats.
        role: names the connection in RabbitMQ.
    """

    def __init__(self, address: StreamAddress, settings: Settings, role: ConnectionRole) -> None:
        super().__init__(
            address.host,
            address.port,
            ssl_context=address.ssl_context(),
            frame_max=FRAME_MAX,
            heartbeat=settings.broker_heartbeat,
            connection_name=f"saga-engine {role.value}",
            connection_closed_handler=lambda info: self.end(info.reason),
            sasl_configuration_mechanism=(
                SlasMechanism.MechanismExternal
                if address.uses_certificate
                else SlasMechanism.MechanismPlain
            ),
        )
        self.add_stream(address.vhost)  # rstream reports the end of a connection with streams only
        self._socket = _Socket(address.host, address.port, self._ssl_context)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(self, reason: str) -> None:
        """Use the connection no more; `ended` has the first reason."""
        if not self.ended.done():
            self.ended.set_result(reason)

    async def start(self) -> None:
        """Connect; as `Client.start`, with a socket that can be aborted."""
        self._conn = self._socket
        await self._socket.open()
        self.start_task("listener", self._listener())
        self.add_handler(schema.Heartbeat, self._on_heartbeat)
        self.add_handler(schema.Close, self._on_close)

    async def close(self) -> None:
        """Close within CLOSE_TIMEOUT, whether or not RabbitMQ answers; it raises nothing."""
        self.end("it was closed")
        with suppress(Exception):  # rstream raises again what its reader could not decode
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await super().close()
        self._socket.abort()
        for name in [*self._tasks]:
            with suppress(Exception):
                await self.stop_task(name)

    def _on_close(self, close: schema.Close) -> None:
        self._is_not_closed = False
        self.end(close.reason)


class _Socket(Connection):
    def abort(self) -> None:
        """Close without a word to the peer, which may not answer."""
        if self._writer:
            self._writer.transport.abort()


async def open_client(
    address: StreamAddress, settings: Settings, role: ConnectionRole
) -> StreamClient:
    """
    Connect and log in.

    Raises:
        ConfigurationError: RabbitMQ refuses the user, or a certificate file cannot be used.
        BrokerUnavailable: it is out of reach, or the plugin is not enabled.
    """
    client = StreamClient(address, settings, role)
    try:
        async with asyncio.timeout(settings.broker_connect_timeout):
            await client.start()
            await client.authenticate(address.vhost, address.username, address.password)
    except BaseException as error:
        await client.close()
        if isinstance(error, Exception):
            raise _connect_error(address, error) from error
        raise
    return client


@contextmanager
def broker_errors(action: str) -> Iterator[None]:
    """
    Turn what a request of a client raises into BrokerUnavailable, which begins with *action*.

    `exceptions.ServerError` is left to the caller.
    """
    try:
        yield
    except TimeoutError as error:
        raise BrokerUnavailable(f"{action}: RabbitMQ did not answer in time.") from error
    except (OSError, ConnectionClosed, AssertionError) as error:
        raise BrokerUnavailable(f"{action}: the connection was lost.") from error


def _connect_error(address: StreamAddress, error: Exception) -> Exception:
    if isinstance(error, ConfigurationError):
        return error
    if isinstance(error, exceptions.AuthenticationFailure):
        return ConfigurationError(f"RabbitMQ at {address} refuses this user or password. {_FIX}")
    if isinstance(error, exceptions.SASLAuthenticationFailureLoopback):
        return ConfigurationError(
            f"RabbitMQ at {address} lets this user in from its own machine only. {_FIX}"
        )
    if isinstance(error, exceptions.VirtualHostAccessFailure):
        return ConfigurationError(
            f"RabbitMQ at {address.host}:{address.port} has no virtual host {address.vhost!r}, or"
            " does not let this user into it. Create it, or grant the permissions that"
            f" docs/security.md lists. {_FIX}"
        )
    if problem := tls.handshake_problem(error, tls.BROKER_STREAM_PARAMETERS):
        return BrokerUnavailable(f"RabbitMQ at {address} {problem}.")
    return BrokerUnavailable(
        f"RabbitMQ at {address} is out of reach by the stream protocol: {_reason(error)}. Start it,"
        f" enable its plugin with `rabbitmq-plugins enable rabbitmq_stream`, or correct {_URL}."
    )


def _reason(error: Exception) -> str:
    """Return why a connection could not be opened, without the Python of asyncio's text."""
    if isinstance(error, TimeoutError) and not error.errno:
        return (
            "it did not answer within broker_connect_timeout, as if the port were another one, that"
            f" of AMQP for example (the stream protocol has {PORT}, with TLS {TLS_PORT})"
        )
    if numbers := _ERRNO.findall(str(error)):  # one for each address of the host
        return " and ".join(dict.fromkeys(os.strerror(int(each)) for each in numbers))
    strerror = error.strerror if isinstance(error, OSError) else ""
    return strerror or str(error) or type(error).__name__
