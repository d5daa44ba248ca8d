"""Opens one connection to RabbitMQ, and explains why it could not be opened."""

import asyncio

from aiormq.exceptions import (
    AuthenticationError,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from saga_engine import tls
from saga_engine.amqp import driver
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.amqp.url import INVALID_URL, display_address, vhost_of
from saga_engine.errors import BrokerUnavailable, ConfigurationError
from saga_engine.vocabulary import ConnectionRole


async def open_connection(url: str, role: ConnectionRole, seconds: float) -> AmqpConnection:
    """
    Open one connection.

    Raises:
        ConfigurationError: the broker refuses the password or the virtual host, or the URL is
            invalid.
        BrokerUnavailable: the broker is unreachable, or TLS failed.
    """
    address = display_address(url)
    try:
        tls_settings = tls.broker_tls_files(url)
        connection = AmqpConnection(
            url,
            context=tls.create_ssl_context(tls_settings) if tls_settings else None,
            client_properties={
                "product": "saga-engine",
                "connection_name": f"saga-engine {role}",
            },
        )
        connection.on_blocked = _ignore_blocked
        connection.on_unblocked = _ignore_blocked
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 - the parser's error may quote the password of the URL
        raise ConfigurationError(INVALID_URL) from None
    try:
        with driver.translate_errors(f"RabbitMQ at {address} is out of reach"):
            async with asyncio.timeout(seconds):
                await connection.connect()
    except asyncio.CancelledError:
        await driver.close(connection, driver.CLOSE_TIMEOUT)  # it may be open already
        raise
    except BrokerUnavailable as error:
        if tls_problem := tls.handshake_problem(error.__cause__, tls.BROKER_PARAMETERS):
            raise BrokerUnavailable(f"RabbitMQ at {address} {tls_problem}.") from error.__cause__
        configuration_problem = _configuration_problem(error.__cause__, address, vhost_of(url))
        unreachable = (
            f"{error} Start it, or correct"
            f" SAGA_ENGINE_BROKER_URL.{_connection_reset_hint(error, url)}"
        )
        raise (
            ConfigurationError(configuration_problem)
            if configuration_problem
            else BrokerUnavailable(unreachable)
        ) from error.__cause__
    return connection


def _ignore_blocked(*_: str) -> None:
    """Ignore a block while the connection is being opened: opening only takes longer."""


def _configuration_problem(error: BaseException | None, address: str, vhost: str) -> str:
    if isinstance(error, ProbableAuthenticationError | AuthenticationError):
        return (
            f"RabbitMQ at {address} refuses this user or password."
            " Correct them in SAGA_ENGINE_BROKER_URL."
        )
    # The broker refuses a virtual host with Connection.Close in place of Connection.OpenOk.
    if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error):
        return (
            f"RabbitMQ at {address.partition(',')[0]} has no virtual host {vhost!r}, or does not"
            " let this user into it. Create it (`rabbitmqctl add_vhost`), grant the permissions"
            " (`rabbitmqctl set_permissions`), or correct SAGA_ENGINE_BROKER_URL."
        )
    return ""


def _connection_reset_hint(error: BaseException, url: str) -> str:
    """Name another possible cause when the server closes a connection that it just accepted."""
    cause = error.__cause__
    if not isinstance(
        cause and cause.__cause__, ConnectionResetError | asyncio.IncompleteReadError
    ):
        return ""
    if url.startswith("amqp:"):
        return " If that port is for TLS, say amqps://."
    # The reason may be lost: the server may close the socket after the handshake of TLS 1.3.
    return " It may require a client certificate: set certfile and keyfile."
