"""
A channel in confirm mode that accounts for whole batches of publishes.

aiormq keeps one future for each message; here one batch is one write, one range of delivery tags
and one future. Rule: delivered means acknowledged and not returned. For a message no queue is bound
for, the broker sends the return first and the acknowledgement after it (RabbitMQ guide "Consumer
Acknowledgements and Publisher Confirms"). Whatever is open when the channel ends is UNKNOWN.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp import commands
from pamqp.header import ContentHeader

from saga_engine.protocol.message import PublishOutcome


class ConfirmBatch:
    """Messages written together, with delivery tags from `first` on; `done` when all settled."""

    def __init__(self, first_tag: int, size: int) -> None:
        self.first_tag = first_tag
        self.outcomes: list[PublishOutcome | None] = [None] * size
        self.completed = asyncio.get_running_loop().create_future()
        self._unroutable: set[int] = set()
        self._first_open = 0
        self._open_count = size

    @property
    def end_tag(self) -> int:
        """The tag after its last one."""
        return self.first_tag + len(self.outcomes)

    @property
    def has_no_response(self) -> bool:
        """Whether the broker has said nothing of it yet."""
        return self._open_count == len(self.outcomes)

    def mark_unroutable(self, tag: int) -> None:
        """Note that no queue took the message; its acknowledgement is still to come."""
        self._unroutable.add(tag - self.first_tag)

    def resolve(self, tag: int, outcome: PublishOutcome, *, multiple: bool) -> None:
        """Settle one message, or all up to it."""
        last_index = min(tag, self.end_tag - 1) - self.first_tag
        for index in range(self._first_open if multiple else last_index, last_index + 1):
            self._resolve_one(index, outcome)
        if multiple:
            self._first_open = last_index + 1

    def resolve_as_unknown(self) -> None:
        """Settle what is open as unknown, except what is known to have come back."""
        self.resolve(self.end_tag, PublishOutcome.UNKNOWN, multiple=True)

    def _resolve_one(self, index: int, outcome: PublishOutcome) -> None:
        if self.outcomes[index] is not None:
            return
        self.outcomes[index] = PublishOutcome.UNROUTABLE if index in self._unroutable else outcome
        self._open_count -= 1
        if not self._open_count and not self.completed.done():
            self.completed.set_result(None)


class ConfirmChannel(Channel):
    """aiormq's channel with its accounting of single messages replaced by that of batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._batches: deque[ConfirmBatch] = deque()
        self._tag_by_message_id: dict[str, int] = {}
        self._next_tag = 1

    async def send_batch(self, message_ids: Sequence[str], payload: bytes) -> ConfirmBatch:
        """
        Write the frames of a batch; `message_ids` in the order of its messages.

        Tags are counted in the order of the writes: callers take turns (the publisher's lock).
        """
        await self.write_queue.put(ChannelFrame(payload=payload, should_close=False))
        # Nothing is awaited from here on, so no confirm can arrive before the batch is known.
        batch = ConfirmBatch(self._next_tag, len(message_ids))
        self._tag_by_message_id.update(
            zip(message_ids, range(batch.first_tag, batch.end_tag), strict=True)
        )
        self._next_tag = batch.end_tag
        self._batches.append(batch)
        return batch

    @property
    def is_idle(self) -> bool:
        """Whether nothing awaits its confirm."""
        return not self._batches

    def is_in_flight(self, message_id: str) -> bool:
        """Whether a message of that id awaits its confirm: a second one could not be told apart."""
        return message_id in self._tag_by_message_id

    def forget_messages(self, message_ids: Sequence[str]) -> None:
        """The batch of these messages is settled."""
        for message_id in message_ids:
            self._tag_by_message_id.pop(message_id, None)

    def resolve_all_as_unknown(self) -> None:
        """Settle everything in flight as unknown; the channel is not used again."""
        for batch in self._batches:
            batch.resolve_as_unknown()
        self._batches.clear()

    async def _on_confirm_frame(self, frame: Any) -> None:
        confirmed = isinstance(frame, commands.Basic.Ack)
        outcome = PublishOutcome.CONFIRMED if confirmed else PublishOutcome.NACKED
        for batch in self._batches:
            if batch.first_tag > frame.delivery_tag:
                break
            if frame.multiple or frame.delivery_tag < batch.end_tag:
                batch.resolve(frame.delivery_tag, outcome, multiple=frame.multiple)
        while self._batches and self._batches[0].completed.done():
            self._batches.popleft()

    async def _on_return_frame(self, frame: commands.Basic.Return) -> None:
        header = await self._get_frame()
        if not isinstance(header, ContentHeader):
            raise TypeError(f"The broker sent {header!r} where a content header belongs.")
        await self._read_content(frame, header)
        tag = self._tag_by_message_id.get(header.properties.message_id or "")
        for batch in self._batches:
            if tag is not None and batch.first_tag <= tag < batch.end_tag:
                batch.mark_unroutable(tag)
