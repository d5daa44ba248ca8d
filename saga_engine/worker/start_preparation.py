"""
Prepares starts: decides the first step of each run before it is known whether the run is new.

A start whose saga this worker has loaded becomes a `PreparedStart`, with the run as it would be
inserted and the events of its first decision. A start that was accepted is never refused: a problem
that keeps it from going on becomes an incident of its run ("blocked"). Other starts are refused if
their input is invalid, and dead-lettered if it cannot be decrypted here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from saga_engine.decider.commands import wake_at
from saga_engine.decider.decide import decide, start_blocked
from saga_engine.decider.events import Event
from saga_engine.decider.triggers import Start
from saga_engine.payload.encryption import EncryptionError, input_associated_data
from saga_engine.payload.ports import PayloadPorts
from saga_engine.store.runs import FIRST_REVISION, StoredRun
from saga_engine.vocabulary import IncidentCause, Json
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.start_refusals import StartRefusals
from saga_engine.worker.timeslice import Timeslice
from saga_engine.worker.work_item import WorkItem, start_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStart:
    """
    A start that is decided, for the case that its run does not exist yet.

    `plain_input` is its input before encryption, to be compared with that of an existing run; it is
    never stored or reported. A start is `comparable` if its input is known here; otherwise it
    reserves no key and is compared with nothing.
    """

    work_item: WorkItem
    stored_run: StoredRun
    events: Sequence[Event]
    plain_input: Json = field(repr=False)
    comparable: bool = True


class StartPreparer:
    """Prepares the starts of one batch."""

    def __init__(self, registry: SagaRegistry, changes: ChangeSet, refusals: StartRefusals) -> None:
        self._registry = registry
        self._changes = changes
        self._refusals = refusals

    def definition_id(self, work_item: WorkItem) -> int | None:
        """The definition that a start gets here; None: this worker has not loaded it."""
        return self._registry.startable_definition_id(work_item.saga, work_item.version)

    async def prepare(self, work_items: Sequence[WorkItem]) -> list[PreparedStart]:
        """Prepare the starts whose definition is loaded, and refuse those that are invalid."""
        prepared_starts, timeslice = [], Timeslice()
        for work_item in work_items:
            await timeslice.yield_if_over()
            definition_id = self.definition_id(work_item)
            if definition_id is not None:
                prepared = await self._prepare(work_item, definition_id)
                if prepared is not None:
                    prepared_starts.append(prepared)
        return prepared_starts

    async def _prepare(self, work_item: WorkItem, definition_id: int) -> PreparedStart | None:
        """Prepare one start; None when it is refused or dead-lettered."""
        was_accepted = work_item.fingerprint is not None
        if work_item.start_problem:
            return self.prepare_blocked(
                work_item, IncidentCause.INPUT_INVALID, work_item.start_problem
            )
        try:
            start, plain_input = self._encrypted_and_plain(work_item)
        except EncryptionError as error:
            problem = f"The input {error}."
            if was_accepted:
                return self.prepare_blocked(work_item, IncidentCause.DECRYPTION_FAILED, problem)
            await self._refusals.dead_letter_undecryptable(work_item, problem)
            return None
        saga = self._registry.sagas[definition_id]
        time_limit = self._changes.effective_time_limit(self._registry.time_limit)
        ports = PayloadPorts(self._registry.encryption, time_limit, self._registry.limits)
        decision = decide(saga, None, start, self._changes.now, ports)
        self._changes.after_commit.code_errors.extend(decision.code_errors)
        if decision.run is not None:
            return PreparedStart(
                work_item=work_item,
                stored_run=StoredRun(
                    run=decision.run,
                    definition_id=definition_id,
                    wake_at=wake_at(saga, decision.run),
                    revision=FIRST_REVISION,
                ),
                events=decision.events,
                plain_input=plain_input,
            )
        problem = decision.refusal or ""
        if was_accepted:
            blocked = self.prepare_blocked(work_item, IncidentCause.INPUT_INVALID, problem)
            return replace(blocked, plain_input=plain_input, comparable=True)
        await self._refusals.refuse_input(work_item, problem)
        return None

    def prepare_blocked(
        self, work_item: WorkItem, cause: IncidentCause, problem: str, *, without_key: bool = False
    ) -> PreparedStart:
        """Prepare a run that starts with an incident, because it was accepted and cannot go on."""
        definition_id = self.definition_id(work_item)
        assert definition_id is not None, "a start is taken only where its definition is loaded"
        saga, start = self._registry.sagas[definition_id], start_of(work_item)
        start = replace(start, key=None if without_key else start.key)
        decision = start_blocked(saga, start, self._changes.now, cause, problem)
        assert decision.run is not None, "a blocked run starts without reading its input"
        return PreparedStart(
            work_item=work_item,
            stored_run=StoredRun(
                run=decision.run,
                definition_id=definition_id,
                wake_at=wake_at(saga, decision.run),
                revision=FIRST_REVISION,
            ),
            events=decision.events,
            plain_input=None,
            comparable=False,
        )

    def _encrypted_and_plain(self, work_item: WorkItem) -> tuple[Start, Json]:
        """The start with its input encrypted, and the input in plain; a caller may store either."""
        encryption, start = self._registry.encryption, start_of(work_item)
        associated_data = input_associated_data(work_item.saga, start.run_id)
        encrypted_start = replace(start, input=encryption.encrypt(start.input, associated_data))
        return encrypted_start, encryption.decrypt(start.input, associated_data)
