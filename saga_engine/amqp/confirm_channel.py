"""
A channel in confirm mode that accounts for whole batches of publishes.

aiormq keeps one future for each message; here a batch is one write, one range of delivery tags and
one future. A message is confirmed when it is acknowledged and was not returned: for an unroutable
message the broker sends `basic.return` first and `basic.ack` after it (RabbitMQ guide "Consumer
Acknowledgements and Publisher Confirms"). The outcome of messages without a response is UNKNOWN
when the channel is closed.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import pamqp.frame
from aiormq.abc import ChannelFrame
from pamqp import commands
from pamqp.header import ContentHeader

from saga_engine.amqp.content_frames import Confirm, Content
from saga_engine.amqp.frame_stream import ContentChannel
from saga_engine.protocol.message import PublishOutcome


class ConfirmBatch:
    """Messages written together; their delivery tags start with `first_tag`."""

    def __init__(self, first_tag: int, size: int) -> None:
        self.first_tag = first_tag
        self.outcomes: list[PublishOutcome | None] = [None] * size
        self.completed = asyncio.get_running_loop().create_future()
        self._unroutable: set[int] = set()
        self._first_open = 0
        self._open_count = size

    @property
    def end_tag(self) -> int:
        """The tag after the last one of the batch."""
        return self.first_tag + len(self.outcomes)

    @property
    def has_no_response(self) -> bool:
        """Whether the broker has not confirmed any message of the batch yet."""
        return self._open_count == len(self.outcomes)

    def mark_unroutable(self, tag: int) -> None:
        """Record that the message was returned; its acknowledgement follows."""
        self._unroutable.add(tag - self.first_tag)

    def resolve(self, tag: int, outcome: PublishOutcome, *, multiple: bool) -> None:
        """Set the outcome of one message, or of all messages up to it."""
        last_index = min(tag, self.end_tag - 1) - self.first_tag
        for index in range(self._first_open if multiple else last_index, last_index + 1):
            self._resolve_one(index, outcome)
        if multiple:
            self._first_open = last_index + 1

    def resolve_as_unknown(self) -> None:
        """Set the remaining outcomes to UNKNOWN, except those of returned messages."""
        self.resolve(self.end_tag, PublishOutcome.UNKNOWN, multiple=True)

    def _resolve_one(self, index: int, outcome: PublishOutcome) -> None:
        if self.outcomes[index] is not None:
            return
        self.outcomes[index] = PublishOutcome.UNROUTABLE if index in self._unroutable else outcome
        self._open_count -= 1
        if not self._open_count and not self.completed.done():
            self.completed.set_result(None)


class ConfirmChannel(ContentChannel):
    """aiormq's channel, with its accounting of single messages replaced by one of batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept_body_bytes = 0  # a returned body is not used
        self._batches: deque[ConfirmBatch] = deque()
        self._tag_by_message_id: dict[str, int] = {}
        self._next_tag = 1

    async def send_batch(self, message_ids: Sequence[str], payload: bytes) -> ConfirmBatch:
        """
        Write the frames of a batch; `message_ids` are in the order of its messages.

        The broker counts tags in the order of the writes, so only one caller may write at a time
        (the publisher's lock).
        """
        await self.write_queue.put(ChannelFrame(payload=payload, should_close=False))
        # No await from here on, so no confirm can arrive before the batch is registered.
        batch = ConfirmBatch(self._next_tag, len(message_ids))
        self._tag_by_message_id.update(
            zip(message_ids, range(batch.first_tag, batch.end_tag), strict=True)
        )
        self._next_tag = batch.end_tag
        self._batches.append(batch)
        return batch

    @property
    def is_idle(self) -> bool:
        """Whether no message awaits its confirm."""
        return not self._batches

    def is_in_flight(self, message_id: str) -> bool:
        """Whether a message with this id awaits its confirm; returns of two would be ambiguous."""
        return message_id in self._tag_by_message_id

    def forget_messages(self, message_ids: Sequence[str]) -> None:
        """Remove the messages of a batch that is done."""
        for message_id in message_ids:
            self._tag_by_message_id.pop(message_id, None)

    def resolve_all_as_unknown(self) -> None:
        """Set the outcome of every message in flight to UNKNOWN; the channel is not used again."""
        for batch in self._batches:
            batch.resolve_as_unknown()
        self._batches.clear()

    def receive_confirm(self, confirm: Confirm) -> None:
        """Set the outcomes that a confirm is about."""
        outcome = PublishOutcome.CONFIRMED if confirm.acknowledged else PublishOutcome.NACKED
        for batch in self._batches:
            if batch.first_tag > confirm.delivery_tag:
                break
            if confirm.multiple or confirm.delivery_tag < batch.end_tag:
                batch.resolve(confirm.delivery_tag, outcome, multiple=confirm.multiple)
        while self._batches and self._batches[0].completed.done():
            self._batches.popleft()

    def receive_content(self, content: Content) -> None:
        """Record that a message was returned."""
        if content.deliver is None:
            _, _, header = pamqp.frame.unmarshal(content.header_frame)
            self._mark_returned(header)

    async def _on_confirm_frame(self, frame: Any) -> None:
        acknowledged = isinstance(frame, commands.Basic.Ack)
        self.receive_confirm(Confirm(self.number, frame.delivery_tag, frame.multiple, acknowledged))

    async def _on_return_frame(self, frame: commands.Basic.Return) -> None:
        header = await self._get_frame()
        if not isinstance(header, ContentHeader):
            raise TypeError(f"The broker sent {header!r} where a content header belongs.")
        await self._read_content(frame, header)
        self._mark_returned(header)

    def _mark_returned(self, header: object) -> None:
        assert isinstance(header, ContentHeader), "both callers have its frame"
        tag = self._tag_by_message_id.get(header.properties.message_id or "")
        for batch in self._batches:
            if tag is not None and batch.first_tag <= tag < batch.end_tag:
                batch.mark_unroutable(tag)
