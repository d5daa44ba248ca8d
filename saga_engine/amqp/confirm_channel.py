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

from saga_engine.protocol.message import Published


class Batch:
    """Messages written together, with delivery tags from `first` on; `done` when all settled."""

    def __init__(self, first: int, size: int) -> None:
        self.first = first
        self.outcomes: list[Published | None] = [None] * size
        self.done = asyncio.get_running_loop().create_future()
        self._returned: set[int] = set()
        self._low = 0
        self._open = size

    @property
    def end(self) -> int:
        """The tag after its last one."""
        return self.first + len(self.outcomes)

    @property
    def unheard(self) -> bool:
        """Whether the broker has said nothing of it yet."""
        return self._open == len(self.outcomes)

    def returned(self, tag: int) -> None:
        """Note that no queue took the message; its acknowledgement is still to come."""
        self._returned.add(tag - self.first)

    def settle(self, tag: int, outcome: Published, *, multiple: bool) -> None:
        """Settle one message, or all up to it."""
        last = min(tag, self.end - 1) - self.first
        for index in range(self._low if multiple else last, last + 1):
            self._settle(index, outcome)
        if multiple:
            self._low = last + 1

    def give_up(self) -> None:
        """Settle what is open as unknown, except what is known to have come back."""
        self.settle(self.end, Published.UNKNOWN, multiple=True)

    def _settle(self, index: int, outcome: Published) -> None:
        if self.outcomes[index] is not None:
            return
        self.outcomes[index] = Published.RETURNED if index in self._returned else outcome
        self._open -= 1
        if not self._open and not self.done.done():
            self.done.set_result(None)


class ConfirmChannel(Channel):
    """aiormq's channel with its accounting of single messages replaced by that of batches."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._batches: deque[Batch] = deque()
        self._tags: dict[str, int] = {}
        self._next = 1

    async def send(self, message_ids: Sequence[str], payload: bytes) -> Batch:
        """
        Write the frames of a batch; `message_ids` in the order of its messages.

        Tags are counted in the order of the writes: callers take turns (the publisher's lock).
        """
        await self.write_queue.put(ChannelFrame(payload=payload, should_close=False))
        # Nothing is awaited from here on, so no confirm can arrive before the batch is known.
        batch = Batch(self._next, len(message_ids))
        self._tags.update(zip(message_ids, range(batch.first, batch.end), strict=True))
        self._next = batch.end
        self._batches.append(batch)
        return batch

    @property
    def is_idle(self) -> bool:
        """Whether nothing awaits its confirm."""
        return not self._batches

    def in_flight(self, message_id: str) -> bool:
        """Whether a message of that id awaits its confirm: a second one could not be told apart."""
        return message_id in self._tags

    def forget(self, message_ids: Sequence[str]) -> None:
        """The batch of these messages is settled."""
        for message_id in message_ids:
            self._tags.pop(message_id, None)

    def give_up(self) -> None:
        """Settle everything in flight as unknown; the channel is not used again."""
        for batch in self._batches:
            batch.give_up()
        self._batches.clear()

    async def _on_confirm_frame(self, frame: Any) -> None:
        confirmed = isinstance(frame, commands.Basic.Ack)
        outcome = Published.CONFIRMED if confirmed else Published.NACKED
        for batch in self._batches:
            if batch.first > frame.delivery_tag:
                break
            if frame.multiple or frame.delivery_tag < batch.end:
                batch.settle(frame.delivery_tag, outcome, multiple=frame.multiple)
        while self._batches and self._batches[0].done.done():
            self._batches.popleft()

    async def _on_return_frame(self, frame: commands.Basic.Return) -> None:
        header = await self._get_frame()
        if not isinstance(header, ContentHeader):
            raise TypeError(f"The broker sent {header!r} where a content header belongs.")
        await self._read_content(frame, header)
        tag = self._tags.get(header.properties.message_id or "")
        for batch in self._batches:
            if tag is not None and batch.first <= tag < batch.end:
                batch.returned(tag)
