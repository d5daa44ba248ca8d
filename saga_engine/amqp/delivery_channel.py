"""
A channel that turns messages into deliveries and acknowledges many of them at once.

aiormq starts a task for each delivery; this channel only calls a function. The rest of a body that
is longer than what is kept is read and dropped, so that a sender cannot fill the memory. One
acknowledgement covers every delivery before the first one that is still unacknowledged.

`content_frames` reads the messages. Those that it leaves to aiormq arrive as the frames that
`_on_deliver_frame` reads, and become the same deliveries.
"""

from collections.abc import Callable, Iterable
from typing import Any

from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from saga_engine.amqp.content_frames import Content
from saga_engine.amqp.delivery_decoding import build_delivery, decode_delivery
from saga_engine.amqp.frame_stream import ContentChannel
from saga_engine.amqp.frames import encode_ack, encode_reject
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings


class DeliveryChannel(ContentChannel):
    """
    aiormq's channel, with its handling of deliveries replaced.

    `received_count` counts every delivery of the channel.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue_by_consumer_tag: dict[str, str] = {}
        self._consumer_count = 0
        self._prefetch: int | None = None
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
        self.kept_body_bytes = max(settings.max_body_bytes, settings.max_dead_letter_body_bytes)

    async def consume_queue(
        self, queue: str, seconds: float, *, prefetch: int | None = None, priority: int = 0
    ) -> str:
        """
        Start to consume one queue; return the consumer's tag.

        Args:
            prefetch: the most unacknowledged deliveries; by default that of the last consumer.
            priority: a consumer with a lower one gets messages only while no higher one takes them.
        """
        if prefetch not in (None, self._prefetch):
            await self.basic_qos(prefetch_count=prefetch, timeout=seconds)
            self._prefetch = prefetch
        consumer_tag = f"saga-engine.{self._generation}.{self._consumer_count}"
        self._consumer_count += 1
        self.queue_by_consumer_tag[consumer_tag] = queue
        await self.basic_consume(
            queue,
            _unused_callback,
            consumer_tag=consumer_tag,
            arguments={"x-priority": priority} if priority else None,
            timeout=seconds,
        )
        return consumer_tag

    async def cancel_consumer(self, consumer_tag: str, seconds: float) -> None:
        """Stop one consumer; its deliveries can still be acknowledged."""
        await self.basic_cancel(consumer_tag, timeout=seconds)
        del self.queue_by_consumer_tag[consumer_tag]  # after the response no delivery follows

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

    def receive_content(self, content: Content) -> None:
        """Count a delivery and hand it out."""
        if content.deliver is not None:
            self.received_count += 1
            queue = self.queue_by_consumer_tag.get(content.deliver.consumer_tag, "")
            self._on_delivery(
                decode_delivery(content, content.deliver, self._settings, queue, self._generation)
            )

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
        remaining_bytes = self.kept_body_bytes
        while unread_bytes > 0:
            content = await self._get_frame()
            if not isinstance(content, ContentBody):
                raise TypeError(f"The broker sent {content!r} where a body belongs.")
            unread_bytes -= len(content.value)
            parts.append(content.value[:remaining_bytes])
            remaining_bytes -= len(parts[-1])
        return b"".join(parts)


async def _unused_callback(_: DeliveredMessage) -> None:
    """Satisfy aiormq, which requires a callback for each consumer; the channel itself is ours."""
