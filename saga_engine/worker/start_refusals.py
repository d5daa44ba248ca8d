"""
Refuses starts: answers the client, dead-letters the message and releases the business key.

A start that came by RabbitMQ holds no key before its run is inserted. One that was stored in
PostgreSQL reserved its key in the caller's transaction, so a refusal releases it.
"""

from collections.abc import Sequence

from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.work_item import WorkItem, start_of


class StartRefusals:
    """Refuses starts in one transaction."""

    def __init__(self, tx: StoreTransaction, changes: ChangeSet) -> None:
        self._tx = tx
        self._changes = changes

    async def await_definition_or_refuse(self, work_items: Sequence[WorkItem]) -> None:
        """Store starts of sagas that some worker has loaded, and refuse those of unknown sagas."""
        known_versions = await self._tx.known_versions({work_item.saga for work_item in work_items})
        known_names = {name for name, _ in known_versions}
        for work_item in work_items:
            saga, version = work_item.saga, work_item.version
            if (saga, version) in known_versions or (version is None and saga in known_names):
                self._changes.await_definition(work_item)
                continue
            description = f"saga {saga[:100]!r}" + (
                "" if version is None else f" version {version}"
            )
            text = (
                f"No worker has ever loaded {description}. Check the name, or start a worker"
                " with it."
            )
            self._changes.refuse(work_item, AnswerOutcome.UNKNOWN_SAGA, text)
            self._changes.dead_letter(work_item, DeadLetterReason.UNKNOWN_SAGA, text)

    def refuse_run_id(self, work_item: WorkItem, problem: str) -> None:
        """Refuse a start whose run id cannot be that of a new run."""
        self._changes.refuse(work_item, AnswerOutcome.INVALID, problem)
        self._changes.dead_letter(work_item, DeadLetterReason.INVALID_RUN_ID, problem)

    async def refuse_input(self, work_item: WorkItem, problem: str) -> None:
        """Refuse a start whose input its saga does not accept."""
        self._changes.refuse(work_item, AnswerOutcome.INVALID, problem)
        self._changes.dead_letter(work_item, DeadLetterReason.INVALID_INPUT, problem)
        if work_item.delivery is None:
            await self._release_key(work_item)

    async def dead_letter_undecryptable(self, work_item: WorkItem, problem: str) -> None:
        """Dead-letter a start that needs a key which this worker does not have."""
        text = f"{problem} The start is dead-lettered; redrive it when the key is available."
        self._changes.refuse(work_item, AnswerOutcome.REFUSED, text)
        self._changes.dead_letter(work_item, DeadLetterReason.INPUT_UNDECRYPTABLE, text)
        if work_item.delivery is None:
            await self._release_key(work_item)

    async def refuse_conflict(self, work_item: WorkItem, run_id: str) -> None:
        """Refuse a start of a run that exists with another input or key."""
        text = f"Run {run_id} was started with another input or key."
        self._changes.refuse(work_item, AnswerOutcome.CONFLICT, text)
        await self._release_key(work_item)

    async def _release_key(self, work_item: WorkItem) -> None:
        """Release the key of a refused start, unless its run exists and owns the key."""
        key = start_of(work_item).key
        if key is not None:
            await self._tx.release_key(work_item.saga, key, work_item.run_id)
