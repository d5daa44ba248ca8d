"""How one connection to RabbitMQ is opened, and what it means when it is not."""

import asyncio

from aiormq.exceptions import (
    AuthenticationError,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from saga_engine import tls
from saga_engine.amqp import driver
from saga_engine.amqp.driver import Connection
from saga_engine.amqp.url import NO_URL, place
from saga_engine.errors import BrokerUnavailable, ConfigurationError


async def connect(url: str, name: str, seconds: float) -> Connection:
    """
    Open one connection.

    Raises:
        ConfigurationError: the broker refuses the password or the virtual host, or the URL is none.
        BrokerUnavailable: out of reach, or TLS failed.
    """
    where = place(url)
    try:
        secured = tls.of_broker(url)
        connection = Connection(
            url,
            context=tls.context(secured) if secured else None,
            client_properties={
                "product": "saga-engine",
                "connection_name": f"saga-engine {name}",
            },
        )
        connection.on_blocked = _unobserved
        connection.on_unblocked = _unobserved
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 - whatever the parser says of the URL may hold the password
        raise ConfigurationError(NO_URL) from None
    try:
        with driver.translated(f"RabbitMQ at {where} is out of reach"):
            async with asyncio.timeout(seconds):
                await connection.connect()
    except BrokerUnavailable as error:
        if trouble := tls.problem(error.__cause__, tls.BROKER):
            raise BrokerUnavailable(f"RabbitMQ at {where} {trouble}.") from error.__cause__
        refusal = _refusal(error.__cause__, where)
        away = f"{error} Start it, or correct SAGA_ENGINE_BROKER_URL.{_hint(error, url)}"
        raise (
            ConfigurationError(refusal) if refusal else BrokerUnavailable(away)
        ) from error.__cause__
    return connection


def _unobserved(*_: str) -> None:
    """A connection that is blocked while it is being opened just makes opening take longer."""


def _refusal(error: BaseException | None, where: str) -> str:
    if isinstance(error, ProbableAuthenticationError | AuthenticationError):
        return (
            f"RabbitMQ at {where} refuses this user or password."
            " Correct them in SAGA_ENGINE_BROKER_URL."
        )
    # To a virtual host that it does not let us into, the broker answers with Connection.Close.
    if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error):
        return (
            f"RabbitMQ at {where} has no such virtual host, or does not let this user into it."
            " Create it (`rabbitmqctl add_vhost`), grant the permissions (`rabbitmqctl"
            " set_permissions`), or correct SAGA_ENGINE_BROKER_URL."
        )
    return ""


def _hint(error: BaseException, url: str) -> str:
    """What else it may be when the server ends a connection that has just begun."""
    cause = error.__cause__
    if not isinstance(
        cause and cause.__cause__, ConnectionResetError | asyncio.IncompleteReadError
    ):
        return ""
    if url.startswith("amqp:"):
        return " If that port is for TLS, say amqps://."
    # Its reason may be lost on the way: after TLS 1.3's handshake it just hangs up.
    return " It may want another certificate of ours: certfile and keyfile name it."
