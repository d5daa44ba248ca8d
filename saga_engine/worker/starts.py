"""
Starting runs: who gets which definition, whose key it is, and what a repeated start is told.

A key and a run id belong to the first input they came with. Asking again with the same input finds
the same run, whether it was asked over RabbitMQ or in a caller's own transaction; another input is
a conflict. A start that cannot be decided takes no key.

Inputs are compared as they were before they were sealed: two that are the same may be sealed with
different keys. One that cannot be decrypted here is set aside, to be sent again when its key is.

A start that was accepted is never refused: what keeps it from going on is an incident of its run.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from saga_engine.decider.decide import decide, start_blocked
from saga_engine.decider.effects import wake_at
from saga_engine.decider.events import Event
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import Start
from saga_engine.payload.encryption import (
    DECRYPTION_FAILED,
    EncryptionError,
    input_associated_data,
    is_encrypted,
)
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.settings import Settings
from saga_engine.store import business_keys, definitions, pending_requests, runs
from saga_engine.store.business_keys import KeyOwner, KeyRequest
from saga_engine.store.database import SqlAlchemyTransaction
from saga_engine.store.runs import RunStatus, StoredRun
from saga_engine.vocabulary import IncidentCause, Json, Status
from saga_engine.worker import decode_pending
from saga_engine.worker.admission import Admission
from saga_engine.worker.change_set import ChangeSet, status_of_run
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.timeslice import Timeslice
from saga_engine.worker.work_item import UnreadableRequest, WorkItem

INPUT_UNDECRYPTABLE = "input_undecryptable"
"""Why a start is set aside whose input is sealed with a key that is not here."""


@dataclass(frozen=True, slots=True)
class PreparedStart:
    """
    A start that can be decided, and what it leads to if the run is not there yet.

    `given` is its input as it was before it was sealed; nothing keeps or tells it. Where it could
    not be unsealed it is `unreadable`, and is compared with nothing.
    """

    work_item: WorkItem
    stored_run: StoredRun
    events: Sequence[Event]
    plain_input: Json = field(repr=False)
    undecryptable: bool = False


class StartProcessor:
    """The starts of one batch."""

    def __init__(
        self,
        tx: SqlAlchemyTransaction,
        registry: SagaRegistry,
        admission: Admission,
        changes: ChangeSet,
        settings: Settings,
    ) -> None:
        self._settings = settings
        self._tx = tx
        self._registry = registry
        self._admission = admission
        self._changes = changes
        self._to_insert: dict[str, PreparedStart] = {}
        self._repeated: list[tuple[PreparedStart, str]] = []

    async def process(self, work_items: Sequence[WorkItem]) -> None:
        """Start the runs that are asked for, once each."""
        work_items = await self._with_valid_run_ids(work_items)
        without_definition = [
            work_item for work_item in work_items if self._definition_id(work_item) is None
        ]
        if without_definition:
            await self._await_definition_or_refuse(without_definition)
        prepared_starts = await self._prepare(work_items)
        key_holders = await self._reserve_keys(prepared_starts)
        for prepared in prepared_starts:
            run_id = prepared.stored_run.run.run_id
            key_holder = key_holders.get(run_id)
            if run_id in key_holders and key_holder is None:
                self._changes.defer(prepared.work_item)
            else:
                await self._resolve_key(prepared, key_holder)
        if self._to_insert:
            await self._admit_or_queue()
            await self._insert_runs()
        if self._repeated:
            await self._answer_repeated()

    async def start_with_incident(self, work_item: WorkItem, text: str) -> None:
        """Begin a run that was accepted and whose start hits a bug of ours, without deciding it."""
        prepared = self._prepare_blocked(work_item, IncidentCause.INTERNAL_ERROR, text)
        self._to_insert[work_item.run_id] = prepared
        self._admission.admit(work_item.saga, self._changes.admitted)
        await self._insert_runs()
        for repeated, _ in self._repeated:
            self._changes.ignore(repeated.work_item, "duplicate")

    async def _with_valid_run_ids(self, work_items: Sequence[WorkItem]) -> list[WorkItem]:
        """Leave out the starts of new runs whose id belongs to no month that is kept."""
        problems = {
            work_item.run_id: problem
            for work_item in work_items
            if work_item.delivery is not None  # what was recorded has been looked at already
            and (problem := self._admission.run_id_problem(work_item.run_id, self._changes.now))
        }
        if not problems:
            return list(work_items)
        problems = {
            run_id: problem
            for run_id, problem in problems.items()
            if run_id
            not in await pending_requests.existing_runs(self._tx, problems)  # asked for again
        }
        for work_item in work_items:
            if work_item.run_id in problems and work_item.delivery is not None:
                text = problems[work_item.run_id]
                self._changes.refuse(work_item, AnswerOutcome.INVALID, text)
                self._changes.dead_letter(work_item, "invalid_run_id", text)
        return [each for each in work_items if each.run_id not in problems or each.delivery is None]

    async def _prepare(self, work_items: Sequence[WorkItem]) -> list[PreparedStart]:
        """The starts that this worker can decide and that are not refused for their input."""
        prepared_starts, timeslice = [], Timeslice()
        for work_item in work_items:
            await timeslice.yield_if_over()
            definition_id = self._definition_id(work_item)
            if definition_id is None:
                continue
            if work_item.start_problem:
                prepared_starts.append(
                    self._prepare_blocked(
                        work_item, IncidentCause.INPUT_INVALID, work_item.start_problem
                    )
                )
                continue
            try:
                start, plain_input = self._encrypted_and_plain(work_item)
            except EncryptionError as error:
                if work_item.fingerprint is None:
                    await self._dead_letter_undecryptable(work_item, f"The input {error}.")
                else:
                    prepared_starts.append(
                        self._prepare_blocked(work_item, DECRYPTION_FAILED, f"The input {error}.")
                    )
                continue
            saga = self._registry.sagas[definition_id]
            decision = decide(
                *(saga, None, start, self._changes.now, self._registry.encryption),
                time_limit=self._changes.effective_watch(self._registry.watch),
                limits=self._registry.limits,
            )
            self._changes.after_commit.code_failures.extend(decision.code_errors)
            if decision.run is None and work_item.fingerprint is None:
                await self._refuse_input(work_item, decision.refusal or "")
            elif decision.run is None:
                blocked = self._prepare_blocked(
                    work_item, IncidentCause.INPUT_INVALID, decision.refusal or ""
                )
                prepared_starts.append(
                    replace(blocked, plain_input=plain_input, undecryptable=False)
                )
            else:
                stored_run = StoredRun(decision.run, definition_id, wake_at(saga, decision.run))
                prepared_starts.append(
                    PreparedStart(work_item, stored_run, decision.events, plain_input)
                )
        return prepared_starts

    def _prepare_blocked(
        self, work_item: WorkItem, cause: str, text: str, *, without_key: bool = False
    ) -> PreparedStart:
        """Begin a run that was accepted and cannot go on: a person decides."""
        definition_id = self._definition_id(work_item)
        assert definition_id is not None, "only what can be started here is taken out"
        saga, start = self._registry.sagas[definition_id], start_trigger(work_item)
        start = replace(start, key=None if without_key else start.key)
        decision = start_blocked(saga, start, self._changes.now, cause, text)
        assert decision.run is not None, "a blocked run begins whatever its input is"
        stored_run = StoredRun(decision.run, definition_id, wake_at(saga, decision.run))
        return PreparedStart(work_item, stored_run, decision.events, None, undecryptable=True)

    def _encrypted_and_plain(self, work_item: WorkItem) -> tuple[Start, Json]:
        """The start as it is kept, and its input as it was: what a caller records may be plain."""
        encryption, start = self._registry.encryption, start_trigger(work_item)
        associated_data = input_associated_data(work_item.saga, start.run_id)
        encrypted_start = replace(start, input=encryption.encrypt(start.input, associated_data))
        return encrypted_start, encryption.decrypt(start.input, associated_data)

    def _definition_id(self, work_item: WorkItem) -> int | None:
        return self._registry.startable_definition_id(work_item.saga, work_item.version)

    async def _await_definition_or_refuse(self, work_items: Sequence[WorkItem]) -> None:
        """Keep starts for a worker that has the saga, if one has ever said so; refuse the rest."""
        known_versions = await definitions.known_versions(
            self._tx, {work_item.saga for work_item in work_items}
        )
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
            self._changes.dead_letter(work_item, "unknown_saga", text)

    async def _refuse_input(self, work_item: WorkItem, text: str) -> None:
        self._changes.refuse(work_item, AnswerOutcome.INVALID, text)
        self._changes.dead_letter(work_item, "invalid_input", text)
        if work_item.delivery is None:
            await self._release_key(work_item)  # it was reserved in the caller's transaction

    async def _dead_letter_undecryptable(self, work_item: WorkItem, problem: str) -> None:
        """Keep a start that can be decided only where a key is that is not here."""
        text = f"{problem} The start is set aside; send it again when the key is there."
        self._changes.refuse(work_item, AnswerOutcome.REFUSED, text)
        self._changes.dead_letter(work_item, INPUT_UNDECRYPTABLE, text)
        if work_item.delivery is None:
            await self._release_key(work_item)  # the same

    async def _release_key(self, work_item: WorkItem) -> None:
        """Give the key of a start that is refused back, unless its run is there with that key."""
        key = start_trigger(work_item).key
        if key is not None:
            await business_keys.release(self._tx, work_item.saga, key, work_item.run_id)

    async def _reserve_keys(
        self, prepared_starts: Sequence[PreparedStart]
    ) -> dict[str, KeyOwner | None]:
        """Who holds the key that each run wants, by the wanting run's id; None: that is not out."""
        wanted_keys = []
        for prepared in prepared_starts:
            start = start_trigger(prepared.work_item)
            if start.key is not None and not prepared.undecryptable:
                saga = prepared.work_item.saga
                wanted_keys.append(KeyRequest(saga, start.key, start.run_id, prepared.plain_input))
        key_holders = await business_keys.try_reserve(
            self._tx, wanted_keys, self._registry.encryption
        )
        return {
            each.run_id: key_holder
            for each, key_holder in zip(wanted_keys, key_holders, strict=True)
        }

    async def _resolve_key(self, prepared: PreparedStart, key_holder: KeyOwner | None) -> None:
        work_item = prepared.work_item
        if key_holder and work_item.fingerprint is not None:
            if key_holder.run_id != work_item.run_id:
                text = f"Key {start_trigger(work_item).key!r} belongs to run {key_holder.run_id}."
                prepared = self._prepare_blocked(
                    work_item, IncidentCause.KEY_CONFLICT, text, without_key=True
                )
            self._add_once(prepared)
        elif key_holder and key_holder.decryption_error:
            explanation = (
                f"Key {start_trigger(work_item).key!r} belongs to run"
                f" {key_holder.run_id}, whose input"
            )
            await self._dead_letter_undecryptable(
                work_item, f"{explanation} {key_holder.decryption_error}."
            )
        elif key_holder and not key_holder.same_input:
            text = (
                f"Key {start_trigger(work_item).key!r} belongs to run {key_holder.run_id},"
                " with another input."
            )
            self._changes.refuse(work_item, AnswerOutcome.CONFLICT, text, key_holder.run_id)
        elif key_holder and key_holder.run_id != work_item.run_id:
            self._repeated.append((prepared, key_holder.run_id))
        else:
            self._add_once(prepared)

    def _add_once(self, prepared: PreparedStart) -> None:
        run_id = prepared.work_item.run_id
        if run_id in self._to_insert:
            self._repeated.append((prepared, run_id))
        else:
            self._to_insert[run_id] = prepared

    async def _admit_or_queue(self) -> None:
        """Let in those whose turn it is, and send the others to wait; see Admission."""
        if any(prepared.work_item.delivery for prepared in self._to_insert.values()):
            await self._admission.refresh(self._tx)
        queued = []
        for run_id, prepared in list(self._to_insert.items()):
            saga = prepared.stored_run.run.saga
            # What was recorded has waited already; whoever took it out knew that there is a place.
            if prepared.work_item.delivery is None or self._admission.has_slot(saga):
                self._admission.admit(saga, self._changes.admitted)
            else:
                self._admission.mark_queued(saga)
                queued.append(self._to_insert.pop(run_id))
        if queued:
            await self._queue_starts(queued)

    async def _queue_starts(self, queued: Sequence[PreparedStart]) -> None:
        """Let starts wait, unless their runs are there or wait already."""
        known_run_ids = await pending_requests.existing_runs(
            self._tx, [prepared.work_item.run_id for prepared in queued]
        )
        for prepared in queued:
            run_id = prepared.work_item.run_id
            if run_id in known_run_ids:
                self._repeated.append((prepared, run_id))
            else:
                self._changes.queue_accepted_start(prepared.work_item, prepared.stored_run.run)

    async def _insert_runs(self) -> None:
        inserted = await runs.insert(
            self._tx, [prepared.stored_run for prepared in self._to_insert.values()]
        )
        for run_id, prepared in self._to_insert.items():
            if run_id in inserted:
                self._changes.locked_runs[run_id] = prepared.stored_run
                self._changes.record_decision(
                    None, prepared.stored_run.run, prepared.events, prepared.work_item
                )
                self._changes.accept(prepared.work_item, prepared.stored_run.run)
            else:
                self._repeated.append((prepared, run_id))

    async def _answer_repeated(self) -> None:
        run_ids = {run_id for _, run_id in self._repeated}
        stored_runs = await runs.read_unlocked(
            self._tx, run_ids, max_bytes=self._settings.max_batch_bytes
        )
        # There is no row yet when the start was accepted and waits.
        queued_starts = await self._load_queued_starts(run_ids - stored_runs.keys())
        for prepared, run_id in self._repeated:
            stored_run, queued_start = stored_runs.get(run_id), queued_starts.get(run_id)
            try:
                differs = self._differs(
                    prepared, stored_run.run if stored_run else None, queued_start
                )
            except EncryptionError as error:
                await self._refuse_incomparable(prepared.work_item, run_id, error)
                continue
            if differs:
                await self._refuse_conflict(prepared.work_item, run_id)
                continue
            self._changes.ignore(prepared.work_item, "duplicate")
            queued_status = (
                _queued_status(queued_start) if isinstance(queued_start, WorkItem) else None
            )
            status = status_of_run(stored_run.run) if stored_run else queued_status
            self._changes.answer(
                prepared.work_item.answer_to, AnswerOutcome.EXISTING, run_id, status
            )

    async def _refuse_incomparable(
        self, work_item: WorkItem, run_id: str, error: EncryptionError
    ) -> None:
        if work_item.fingerprint is None:
            await self._dead_letter_undecryptable(work_item, f"The input of run {run_id} {error}.")
        else:
            self._changes.ignore(work_item, "duplicate")  # whoever asked hears how that run stands

    async def _refuse_conflict(self, work_item: WorkItem, run_id: str) -> None:
        text = f"Run {run_id} was started with another input or key."
        self._changes.refuse(work_item, AnswerOutcome.CONFLICT, text)
        await self._release_key(work_item)

    async def _load_queued_starts(
        self, run_ids: Collection[str]
    ) -> dict[str, WorkItem | UnreadableRequest]:
        body_limits = decode_pending.body_limits(self._settings)
        requests = await pending_requests.read_starts(self._tx, run_ids, body_limits)
        return {
            each: decode_pending.decode_request(request, self._settings)
            for each, request in requests.items()
        }

    def _differs(
        self,
        prepared: PreparedStart,
        run: Run | None,
        queued_start: WorkItem | UnreadableRequest | None,
    ) -> bool:
        """Whether what has the id, a run or a start that waits, is not what a start asks for."""
        if run is not None:
            return not self._matches_run(prepared, run)
        if queued_start is None:
            return False
        if isinstance(queued_start, UnreadableRequest):
            return True
        queued_trigger, requested_trigger = (
            start_trigger(queued_start),
            start_trigger(prepared.work_item),
        )
        if (queued_start.saga, queued_trigger.key) != (
            prepared.work_item.saga,
            requested_trigger.key,
        ):
            return True
        associated_data = input_associated_data(queued_start.saga, prepared.work_item.run_id)
        plain_input = self._registry.encryption.decrypt(queued_trigger.input, associated_data)
        return not business_keys.equal_inputs(prepared.plain_input, plain_input)

    def _matches_run(self, prepared: PreparedStart, run: Run) -> bool:
        """Whether a run is of the saga, the key and the input that a start asks for."""
        if (prepared.work_item.saga, start_trigger(prepared.work_item).key) != (run.saga, run.key):
            return False
        if is_encrypted(run.input) and prepared.stored_run.run.input == run.input:
            return True
        associated_data = input_associated_data(run.saga, run.run_id)
        plain_input = self._registry.encryption.decrypt(run.input, associated_data)
        return business_keys.equal_inputs(prepared.plain_input, plain_input)


def _queued_status(start: WorkItem) -> RunStatus | None:
    """How the run of a start that waits stands; None where no version is known yet."""
    if start.version is None:
        return None
    return RunStatus(Status.RUNNING, start.saga, start.version, start_trigger(start).key)


def start_trigger(work_item: WorkItem) -> Start:
    """The trigger of an arrival that is a start."""
    assert isinstance(work_item.trigger, Start), "only starts come here"
    return work_item.trigger
