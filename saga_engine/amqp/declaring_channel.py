"""Declares one thing after the other on the broker, and checks that it exists if it may not."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
)

from saga_engine.amqp.driver import (
    AmqpConnection,
    BrokerTimeout,
    close,
    open_channel,
    translate_errors,
)
from saga_engine.errors import BrokerUnavailable


@dataclass(slots=True)
class DeclaringChannel:
    """
    A channel for declarations. Another one is opened when a refused declaration has closed it.

    Args:
        connection: to RabbitMQ.
        seconds: that each declaration may take.
        other_user: how another user, with the permissions, makes what this one may not declare.
    """

    connection: AmqpConnection
    seconds: float
    other_user: str = "declare it as another user"
    _channel: Channel | None = None

    async def close(self) -> None:
        """
        Close the channel.

        Raises:
            BrokerTimeout: the broker does not respond.
        """
        if self._channel and not await close(self._channel, self.seconds):
            raise BrokerTimeout("The topology was declared, and then the broker did not respond.")

    async def declare_or_check(
        self, description: str, operation: Callable[..., Awaitable[None]]
    ) -> None:
        """
        Declare something, or check that it exists if this user may not declare it.

        Args:
            description: what it is, for errors.
            operation: declares it on a channel; with `passive`, it only checks.

        Raises:
            ChannelPreconditionFailed: it exists with other arguments.
            BrokerUnavailable: it is missing and may not be declared, or the connection was lost.
        """
        try:
            await self._run_on_channel(description, operation, passive=False)
        except ChannelAccessRefused:
            await self._check_exists(description, operation)
        except (ChannelLockedResource, ChannelNotFoundEntity) as error:
            raise BrokerUnavailable(f"The {description} could not be declared: {error}.") from error

    async def _check_exists(
        self, description: str, operation: Callable[..., Awaitable[None]]
    ) -> None:
        try:
            await self._run_on_channel(description, operation, passive=True)
        except (ChannelNotFoundEntity, ChannelAccessRefused) as error:
            raise BrokerUnavailable(
                f"The {description} does not exist and this user may not declare it. Grant the"
                f" permissions that docs/security.md lists, or {self.other_user}."
            ) from error

    async def _run_on_channel(
        self, description: str, operation: Callable[..., Awaitable[None]], *, passive: bool
    ) -> None:
        channel, self._channel = self._channel, None
        channel = channel or await open_channel(self.connection, Channel, self.seconds)
        with translate_errors(f"The {description} could not be declared", allow_refusals=True):
            await operation(channel, passive=passive)
        self._channel = channel
