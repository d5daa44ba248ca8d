"""
The partitions of a stream: made when the feed begins, and compared with what the feed declares.

A partition that is gone is not made again when the feed has passed events: they would be missing,
and no consumer would know.
"""

from collections import deque
from datetime import timedelta

from rstream import exceptions

from saga_engine.amqp.stream_queues import (
    ArgumentDifference,
    Arguments,
    declare_streams,
    partition_names,
)
from saga_engine.amqp.url import split_hosts
from saga_engine.errors import BrokerUnavailable
from saga_engine.events.feeds.feed import StreamOptions
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.stream_client import StreamClient, broker_errors
from saga_engine.settings import Settings

_ARGUMENTS = {
    "x-max-age": "max_age",
    "x-max-length-bytes": "max_bytes",
    "x-stream-max-segment-size-bytes": "segment_bytes",
}
_UNITS = {"D": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


class StreamTopology:
    """
    The partitions of the stream of a feed.

    Args:
        key: the feed, for the commands in its sentences.
        options: as it declares them.
        settings: where RabbitMQ is, and how long it may take.
    """

    def __init__(self, key: FeedKey, options: StreamOptions, settings: Settings) -> None:
        self.streams = partition_names(options.stream, options.partitions)
        self.differences: tuple[str, ...] = ()
        self.refusal = ""
        """Why the feed stops; empty: it does not."""
        self._key = key
        self._options = options
        self._settings = settings
        self._nodes = deque(split_hosts(settings.require_broker_url()))
        self._is_compared = False
        self._was_complete = False

    def forget(self) -> None:
        """Compare again at the next `check`."""
        self.refusal = ""
        self._is_compared = False

    async def check(self, client: StreamClient, position: int) -> None:
        """
        Find the partitions, or make them for a feed at its beginning; then compare them, once.

        Args:
            client: an open connection.
            position: of the feed; 0: it is at its beginning.

        Raises:
            BrokerUnavailable: RabbitMQ is out of reach, or a partition is gone.
            ConfigurationError: RabbitMQ refuses the user.
        """
        missing = [each for each in self.streams if not await _exists(client, each)]
        is_deleted = missing and self._was_complete
        self.refusal = "" if is_deleted else await self._partition_problem(client, missing)
        if self.refusal:
            return
        if missing and position > 0:
            raise BrokerUnavailable(self._gone(missing[0], position))
        if missing or not self._is_compared:
            self.differences = await self._declare()
            self._is_compared = True
        self._was_complete = True

    async def _declare(self) -> tuple[str, ...]:
        """Declare what is missing, and compare the rest; the next attempt asks another node."""
        options = self._options
        try:
            different = await declare_streams(
                self._nodes[0],
                options.stream,
                options.partitions,
                _arguments(options),
                self._settings.broker_connect_timeout,
            )
        except BaseException:  # as when it does not answer in time
            self._nodes.rotate(-1)
            raise
        return _sentences(different)

    async def _partition_problem(self, client: StreamClient, missing: list[str]) -> str:
        """Return why a stream with other partitions cannot be used; empty when it can."""
        name, declared = self._options.stream, self._options.partitions
        if declared > 1 and await _exists(client, name):
            return self._other_partitions("1 partition")
        beyond = 0 if declared == 1 else declared
        if await _exists(client, f"{name}-{beyond}"):
            count = beyond + 1
            while await _exists(client, f"{name}-{count}"):
                count += 1
            if count == declared:
                return self._super_stream()
            return self._other_partitions(f"{count} partitions")
        count = declared - len(missing)
        # The first partition is made last, so the others may be those of a start that was cut off.
        if missing and count and missing == [*self.streams[count:]]:
            return self._other_partitions(f"{count} partition{'s' * (count > 1)}")
        return ""

    def _other_partitions(self, found: str) -> str:
        name, declared = self._options.stream, self._options.partitions
        return (
            f"Stream {name!r} has {found}, and the feed declares {declared}. With another number,"
            " events of a stream would go to another partition than the earlier ones. Declare the"
            " number that it has, or another name; or create the partition again if it was deleted."
            f" Then run `{self._key.retry_command}`."
        )

    def _super_stream(self) -> str:
        name = self._options.stream
        return (
            f"Stream {name!r} is a super stream with the partition '{name}-0', and the feed"
            f" declares a stream without partitions. Declare another name, or delete"
            f" stream '{name}-0' if nothing reads it; then run `{self._key.retry_command}`."
        )

    def _gone(self, stream: str, position: int) -> str:
        return (
            f"Stream {stream!r} is gone: it was deleted, with the events that it had. The feed"
            f" waits at position {position}. To publish every event again, run"
            f" `{self._key.rewind_command}`: the feed then makes the stream. To go on without them,"
            " create the stream."
        )


async def _exists(client: StreamClient, stream: str) -> bool:
    with broker_errors(f"RabbitMQ was asked for stream {stream!r}"):
        try:
            return await client.stream_exists(stream)
        except exceptions.ServerError as error:  # it exists, and has no leader now
            raise BrokerUnavailable(
                f"Stream {stream!r} is not available: {type(error).__name__}. RabbitMQ may be"
                " electing a leader for it."
            ) from error


def _arguments(options: StreamOptions) -> Arguments:
    given = {
        "x-max-age": None if options.max_age is None else _age(options.max_age),
        "x-max-length-bytes": options.max_bytes,
        "x-stream-max-segment-size-bytes": options.segment_bytes,
    }
    return {name: value for name, value in given.items() if value is not None}


def _age(duration: timedelta) -> str:
    """Write a duration as RabbitMQ reads it: `7D`, `12h`, `90s`."""
    for letter, unit in _UNITS.items():
        if duration % unit == timedelta(0):
            return f"{duration // unit}{letter}"
    return f"{int(duration.total_seconds())}s"


def _sentences(differences: tuple[ArgumentDifference, ...]) -> tuple[str, ...]:
    """Return a sentence for each argument, with the partitions that have it otherwise."""
    streams: dict[tuple[str, str, str], list[str]] = {}
    for each in differences:
        name = _ARGUMENTS.get(each.argument, each.argument)
        values = (
            "no limit" if value is None else str(value) for value in (each.declared, each.current)
        )
        declared, current = values
        streams.setdefault((name, declared, current), []).append(each.stream)
    return tuple(
        f"{name}: the feed declares {declared}, and RabbitMQ has {current} for"
        f" {', '.join(found)}. It is not changed: use a policy, or declare what is there."
        for (name, declared, current), found in sorted(streams.items())
    )
