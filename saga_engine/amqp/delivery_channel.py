"""
A channel that turns frames into deliveries and settles them many at a time.

aiormq starts a task for each delivery; here one is appended and that is all. Of a body longer than
is kept, the rest is read and dropped, so that nobody can fill the memory. One acknowledgement
settles everything up to the first delivery that is still in hand.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.channel import Channel
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from saga_engine.amqp.frames import acknowledged, rejected
from saga_engine.amqp.headers import read_headers
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings


class DeliveryChannel(Channel):
    """
    aiormq's channel with its delivery of single messages replaced.

    `received` counts deliveries, `held` those that are not settled; `queues` maps consumer tags.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.queues: dict[str, str] = {}
        self.received = 0
        self._low = 1
        self._settled: set[int] = set()
        self._epoch = 0
        self._settings: Settings
        self._deliver: Callable[[Delivery], None]

    @property
    def held(self) -> int:
        """Deliveries that are not settled yet."""
        return self.received - (self._low - 1) - len(self._settled)

    def begin(self, epoch: int, deliver: Callable[[Delivery], None], settings: Settings) -> None:
        """Hand each delivery to `deliver`, numbered `epoch`, with as much of it as is kept."""
        self._epoch, self._deliver, self._settings = epoch, deliver, settings

    async def consume(self, queue: str, seconds: float) -> None:
        """Begin to consume one queue."""
        tag = f"saga-engine.{self._epoch}.{len(self.queues)}"
        self.queues[tag] = queue
        await self.basic_consume(queue, _unused, consumer_tag=tag, timeout=seconds)

    async def settle(self, tags: Iterable[int]) -> None:
        """Acknowledge each tag once; a tag that is settled already is passed over."""
        fresh = self._settle(tags)
        # RabbitMQ looks for the tag of a multiple acknowledgement among those that are open, so it
        # must be one that was not acknowledged before.
        prefix = [tag for tag in fresh if tag < self._low][-1:]
        frames = [acknowledged(self.number, tag, multiple=True) for tag in prefix]
        frames += [
            acknowledged(self.number, tag, multiple=False) for tag in fresh if tag > self._low
        ]
        await self._write(frames)

    async def reject(self, tags: Iterable[int]) -> None:
        """Reject each tag once and for good; a tag that is settled already is passed over."""
        await self._write([rejected(self.number, tag) for tag in self._settle(tags)])

    def _settle(self, tags: Iterable[int]) -> list[int]:
        fresh = sorted(tag for tag in set(tags) if tag >= self._low and tag not in self._settled)
        self._settled.update(fresh)
        while self._low in self._settled:
            self._settled.remove(self._low)
            self._low += 1
        return fresh

    async def _write(self, frames: list[bytes]) -> None:
        if frames and not self.is_closed:
            payload = b"".join(frames)
            await self.write_queue.put(ChannelFrame(payload=payload, should_close=False))

    async def _on_deliver_frame(self, frame: commands.Basic.Deliver) -> None:
        header = await self._get_frame()
        if not isinstance(header, ContentHeader):
            raise TypeError(f"The broker sent {header!r} where a content header belongs.")
        body = await self._read_body(header.body_size)
        self.received += 1
        queue = self.queues.get(frame.consumer_tag or "", "")
        self._deliver(delivered(frame, header, body, self._settings, queue, self._epoch))

    async def _read_body(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        room = max(self._settings.body_bytes, self._settings.dead_letter_bytes)
        while missing > 0:
            content = await self._get_frame()
            if not isinstance(content, ContentBody):
                raise TypeError(f"The broker sent {content!r} where a body belongs.")
            missing -= len(content.value)
            parts.append(content.value[:room])
            room -= len(parts[-1])
        return b"".join(parts)


def delivered(
    frame: commands.Basic.Deliver,
    header: ContentHeader,
    body: bytes,
    settings: Settings,
    queue: str,
    epoch: int,
) -> Delivery:
    """Make a delivery of its frames, whatever is in them."""
    of = header.properties
    headers, problem = read_headers(of.headers or {}, settings)
    return Delivery(
        queue=queue,
        epoch=epoch,
        tag=frame.delivery_tag or 0,
        body=body,
        size=header.body_size,
        exchange=frame.exchange or "",
        routing_key=frame.routing_key or "",
        redelivered=bool(frame.redelivered),
        message_id=of.message_id or "",
        correlation_id=of.correlation_id or "",
        reply_to=of.reply_to or "",
        type=of.message_type or "",
        content_type=of.content_type or "",
        content_encoding=of.content_encoding or "",
        user_id=of.user_id or "",
        app_id=of.app_id or "",
        timestamp=of.timestamp if isinstance(of.timestamp, datetime) else None,
        headers=headers,
        problem=problem,
    )


async def _unused(_: DeliveredMessage) -> None:
    """Aiormq wants a callback for each consumer; ours is the channel itself."""
