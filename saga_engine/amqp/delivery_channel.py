"""
A channel that turns frames into deliveries and acknowledges many of them at once.

aiormq starts a task for each delivery; this channel only calls a function. The rest of a body that
is longer than what is kept is read and dropped, so that a sender cannot fill the memory. One
acknowledgement covers every delivery before the first one that is still unacknowledged.
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
    aiormq's channel, with its handling of deliveries replaced.

    `received_count` counts every delivery of the channel.
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
        """How many deliveries are not acknowledged or rejected yet."""
        return self.received_count - (self._first_unacked_tag - 1) - len(self._acked_out_of_order)

    def configure(
        self, generation: int, on_delivery: Callable[[Delivery], None], settings: Settings
    ) -> None:
        """Call `on_delivery` with each delivery, truncated as the settings say."""
        self._generation, self._on_delivery, self._settings = generation, on_delivery, settings

    async def consume_queue(self, queue: str, seconds: float) -> None:
        """Start to consume one queue."""
        consumer_tag = f"saga-engine.{self._generation}.{len(self.queue_by_consumer_tag)}"
        self.queue_by_consumer_tag[consumer_tag] = queue
        await self.basic_consume(
            queue, _unused_callback, consumer_tag=consumer_tag, timeout=seconds
        )

    async def acknowledge(self, tags: Iterable[int]) -> None:
        """Acknowledge each tag once; a tag that is acknowledged already is left out."""
        unacked_tags = self._mark_acknowledged(tags)
        # The tag of a multiple acknowledgement must be unacknowledged itself: RabbitMQ looks it up
        # among the unacknowledged ones.
        multiple_tags = [tag for tag in unacked_tags if tag < self._first_unacked_tag][-1:]
        frames = [encode_ack(self.number, tag, multiple=True) for tag in multiple_tags]
        frames += [
            encode_ack(self.number, tag, multiple=False)
            for tag in unacked_tags
            if tag > self._first_unacked_tag
        ]
        await self._write_frames(frames)

    async def reject(self, tags: Iterable[int]) -> None:
        """Reject each tag once, without requeueing; a tag that is acknowledged is left out."""
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
    generation: int,
) -> Delivery:
    """Build a delivery from its frames; nothing in them raises an error."""
    properties = header.properties
    headers, problem = read_headers(properties.headers or {}, settings)
    return Delivery(
        queue=queue,
        generation=generation,
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
    """Satisfy aiormq, which requires a callback for each consumer; the channel itself is ours."""
