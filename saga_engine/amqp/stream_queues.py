"""
The streams of RabbitMQ, declared by AMQP 0-9-1: one stream, or the partitions of a super stream.

Partitions are streams `name-0`, `name-1`, ... that are bound to the exchange `name`. The stream
protocol has a command that makes the same, since RabbitMQ 3.13.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aiormq.channel import Channel
from aiormq.exceptions import ChannelPreconditionFailed

from saga_engine.amqp import driver
from saga_engine.amqp.declaring_channel import DeclaringChannel
from saga_engine.amqp.handshake import open_connection
from saga_engine.errors import BrokerUnavailable
from saga_engine.vocabulary import ConnectionRole

Arguments = Mapping[str, str | int]

QUEUE_TYPE = "x-queue-type"

_DIFFERENCE = re.compile(
    r"arg '(?P<name>[^']+)'.* received (?P<declared>.+) but current is (?P<current>.+)"
)
_VALUE = re.compile(r"(?:the value )?'(?P<value>[^']*)'")


@dataclass(frozen=True, slots=True)
class ArgumentDifference:
    """
    An argument of a stream that exists, and was declared with another value.

    Args:
        stream: its name.
        argument: such as `x-max-age`.
        declared: the value that was declared; None: without this argument.
        current: the value of the stream; None: it is without this argument.
    """

    stream: str
    argument: str
    declared: str | int | None
    current: str | int | None


def partition_names(name: str, partitions: int) -> tuple[str, ...]:
    """Return the streams of a name: itself, or its partitions."""
    return (name,) if partitions == 1 else tuple(f"{name}-{n}" for n in range(partitions))


async def declare_streams(
    url: str, name: str, partitions: int, arguments: Arguments, seconds: float
) -> tuple[ArgumentDifference, ...]:
    """
    Declare what is missing of a stream, and compare what exists. Nothing that exists is changed.

    The first partition is made last: it exists only if all were made.

    Args:
        url: of one node of RabbitMQ.
        name: of the stream.
        partitions: their number; 1: the stream has the name itself.
        arguments: of each partition, as `x-max-age`.
        seconds: that each step may take.

    Returns:
        The differences, by partition.

    Raises:
        BrokerUnavailable: RabbitMQ is out of reach, this user may not declare what is missing, or
            something that is not a stream has the name.
        ConfigurationError: RabbitMQ refuses the user.
    """
    connection = await open_connection(url, ConnectionRole.PUBLISH, seconds)
    try:
        declaring = DeclaringChannel(connection, seconds)
        streams = partition_names(name, partitions)
        if partitions > 1:
            await _declare_exchange(declaring, name)
        differences: list[ArgumentDifference] = []
        for number in reversed(range(partitions)):
            differences[:0] = await _declare_stream(declaring, streams[number], arguments)
            if partitions > 1:
                await _bind(declaring, name, streams[number], number)
        return tuple(differences)
    finally:
        await driver.close(connection, driver.CLOSE_TIMEOUT)


async def _declare_exchange(declaring: DeclaringChannel, name: str) -> None:
    async def declare(channel: Channel, *, passive: bool) -> None:
        await channel.exchange_declare(
            name,
            exchange_type="direct",
            durable=True,
            passive=passive,
            arguments={"x-super-stream": True},
            timeout=declaring.seconds,
        )

    try:
        await declaring.declare_or_check(f"exchange {name!r} of a super stream", declare)
    except ChannelPreconditionFailed as error:
        raise BrokerUnavailable(_unusable(f"exchange {name!r}", error)) from error


async def _declare_stream(
    declaring: DeclaringChannel, stream: str, arguments: Arguments
) -> list[ArgumentDifference]:
    """
    Declare a stream, or find every argument that it has with another value.

    RabbitMQ names the first difference only. It is asked again with the value that the stream has,
    until it names no other.
    """
    found: dict[str, ArgumentDifference] = {}
    asked: dict[str, str | int] = {QUEUE_TYPE: "stream", **arguments}

    async def declare(channel: Channel, *, passive: bool) -> None:
        await channel.queue_declare(
            stream,
            durable=True,
            passive=passive,
            arguments={**asked},
            timeout=declaring.seconds,
        )

    while True:
        try:
            await declaring.declare_or_check(f"stream {stream!r}", declare)
        except ChannelPreconditionFailed as error:
            difference = _difference(stream, str(error))
            if difference is None or difference.argument in {QUEUE_TYPE, *found}:
                raise BrokerUnavailable(_unusable(f"stream {stream!r}", error)) from error
            found[difference.argument] = difference
            asked.pop(difference.argument, None)
            if difference.current is not None:
                asked[difference.argument] = difference.current
        else:
            return [*found.values()]


async def _bind(declaring: DeclaringChannel, exchange: str, stream: str, number: int) -> None:
    async def bind(channel: Channel, *, passive: bool) -> None:
        if not passive:  # a binding cannot be queried, and the stream protocol does not need it
            await channel.queue_bind(
                stream,
                exchange,
                str(number),
                arguments={"x-stream-partition-order": number},
                timeout=declaring.seconds,
            )

    await declaring.declare_or_check(f"binding of stream {stream!r} to {exchange!r}", bind)


def _unusable(description: str, error: Exception) -> str:
    return (
        f"The {description} exists and is something else. The broker says: {error}. Delete it, or"
        " let the feed publish to a stream with another name."
    )


def _difference(stream: str, refusal: str) -> ArgumentDifference | None:
    """Read what RabbitMQ says of a queue that exists with another argument."""
    if not (found := _DIFFERENCE.search(refusal)):
        return None
    return ArgumentDifference(
        stream, found["name"], _value(found["declared"]), _value(found["current"])
    )


def _value(text: str) -> str | int | None:
    if not (found := _VALUE.match(text)):
        return None
    value = found["value"]
    return int(value) if value.isdecimal() else value
