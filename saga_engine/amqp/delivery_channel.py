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

from saga_engine.amqp.frames import encode_ack, encode_reject
from saga_engine.amqp.headers import read_headers
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings


class DeliveryChannel(Channel):
    """
    aiormq's channel with its delivery of single messages replaced.

    `received` counts deliveries, `held` those that are not settled; `queues` maps consumer tags.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue_by_consumer_tag: dict[str, str] = {}
        self.received_count = 0
        self._first_unacked_tag = 1
        self._acked_out_of_order: set[int] = set()
        self._generation = 0
        self._settings: Settings
        self._on_delivery: Callable[[Delivery], None]

    @property
    def unacked_count(self) -> int:
        """Deliveries that are not settled yet."""
        return self.received_count - (self._first_unacked_tag - 1) - len(self._acked_out_of_order)

    def configure(
        self, epoch: int, on_delivery: Callable[[Delivery], None], settings: Settings
    ) -> None:
        """Hand each delivery to `deliver`, numbered `epoch`, with as much of it as is kept."""
        self._generation, self._on_delivery, self._settings = epoch, on_delivery, settings

    async def consume_queue(self, queue: str, seconds: float) -> None:
        """Begin to consume one queue."""
        consumer_tag = f"saga-engine.{self._generation}.{len(self.queue_by_consumer_tag)}"
        self.queue_by_consumer_tag[consumer_tag] = queue
        await self.basic_consume(
            queue, _unused_callback, consumer_tag=consumer_tag, timeout=seconds
        )

    async def acknowledge(self, tags: Iterable[int]) -> None:
        """Acknowledge each tag once; a tag that is settled already is passed over."""
        unacked_tags = self._mark_acknowledged(tags)
        # RabbitMQ looks for the tag of a multiple acknowledgement among those that are open, so it
        # must be one that was not acknowledged before.
        multiple_tags = [tag for tag in unacked_tags if tag < self._first_unacked_tag][-1:]
        frames = [encode_ack(self.number, tag, multiple=True) for tag in multiple_tags]
        frames += [
            encode_ack(self.number, tag, multiple=False)
            for tag in unacked_tags
            if tag > self._first_unacked_tag
        ]
        await self._write_frames(frames)

    async def reject(self, tags: Iterable[int]) -> None:
        """Reject each tag once and for good; a tag that is settled already is passed over."""
        await self._write_frames(
            [encode_reject(self.number, tag) for tag in self._mark_acknowledged(tags)]
        )

    def _mark_acknowledged(self, tags: Iterable[int]) -> list[int]:
        unacked_tags = sorted(
            tag
            for tag in set(tags)
            if tag >= self._first_unacked_tag and tag not in self._acked_out_of_order
        )
        self._acked_out_of_order.update(unacked_tags)
        while self._first_unacked_tag in self._acked_out_of_order:
            self._acked_out_of_order.remove(self._first_unacked_tag)
            self._first_unacked_tag += 1
        return unacked_tags

    async def _write_frames(self, frames: list[bytes]) -> None:
        if frames and not self.is_closed:
            payload = b"".join(frames)
            await self.write_queue.put(ChannelFrame(payload=payload, should_close=False))

    async def _on_deliver_frame(self, frame: commands.Basic.Deliver) -> None:
        header = await self._get_frame()
        if not isinstance(header, ContentHeader):
            raise TypeError(f"The broker sent {header!r} where a content header belongs.")
        body = await self._read_body(header.body_size)
        self.received_count += 1
        queue = self.queue_by_consumer_tag.get(frame.consumer_tag or "", "")
        self._on_delivery(
            build_delivery(frame, header, body, self._settings, queue, self._generation)
        )

    async def _read_body(self, size: int) -> bytes:
        parts: list[bytes] = []
        unread_bytes = size
        remaining_bytes = max(
            self._settings.max_body_bytes, self._settings.max_dead_letter_body_bytes
        )
        while unread_bytes > 0:
            content = await self._get_frame()
            if not isinstance(content, ContentBody):
                raise TypeError(f"The broker sent {content!r} where a body belongs.")
            unread_bytes -= len(content.value)
            parts.append(content.value[:remaining_bytes])
            remaining_bytes -= len(parts[-1])
        return b"".join(parts)


def build_delivery(
    frame: commands.Basic.Deliver,
    header: ContentHeader,
    body: bytes,
    settings: Settings,
    queue: str,
    epoch: int,
) -> Delivery:
    """Make a delivery of its frames, whatever is in them."""
    properties = header.properties
    headers, problem = read_headers(properties.headers or {}, settings)
    return Delivery(
        queue=queue,
        generation=epoch,
        delivery_tag=frame.delivery_tag or 0,
        body=body,
        body_size=header.body_size,
        exchange=frame.exchange or "",
        routing_key=frame.routing_key or "",
        redelivered=bool(frame.redelivered),
        message_id=properties.message_id or "",
        correlation_id=properties.correlation_id or "",
        reply_to=properties.reply_to or "",
        type=properties.message_type or "",
        content_type=properties.content_type or "",
        content_encoding=properties.content_encoding or "",
        user_id=properties.user_id or "",
        app_id=properties.app_id or "",
        timestamp=properties.timestamp if isinstance(properties.timestamp, datetime) else None,
        headers=headers,
        header_problem=problem,
    )


async def _unused_callback(_: DeliveredMessage) -> None:
    """Aiormq wants a callback for each consumer; ours is the channel itself."""
