"""
Starts runs: which definition a run gets, which run owns a business key, and which runs are new.

A key and a run id belong to the first input they came with. A repeated start with the same input
gets the status of the existing run, whether the first one came over RabbitMQ or was stored in a
caller's transaction; another input is a conflict. A start that cannot be decided reserves no key.
For a start that a caller records in its own transaction, the database function `request_start` has
decided the conflict (store/checked_requests.py).

Most starts are new, have a slot, and conflict with nothing. Such a start is decided, and its run
and key are written in the one statement of its batch (`store.batch_append`), which finds out
whether that is so. Any other start is processed carefully, in a transaction:

    1. refuse run ids that cannot be new, and starts of unknown sagas     start_refusals
    2. decide the first step of each run                                  start_preparation
    3. reserve the business keys, and decide their conflicts              here
    4. find the runs that exist already: their starts are repeated ones
    5. admit the starts that have a slot, and queue the others            admission, change_set
    6. answer the repeated starts                                         repeated_starts

A start that was accepted is never refused: what keeps it from going on is an incident of its run.
"""

from collections.abc import Sequence

from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.settings import Settings
from saga_engine.store.batch_append import NewKey
from saga_engine.store.business_keys import KeyOwner, KeyRequest, SagaKey, digest_to_store
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.vocabulary import IncidentCause
from saga_engine.worker.admission import Admission
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.repeated_starts import RepeatedStarts
from saga_engine.worker.start_preparation import PreparedStart, StartPreparer
from saga_engine.worker.start_refusals import StartRefusals
from saga_engine.worker.work_item import WorkItem, start_of


class StartProcessor:
    """Processes the starts of one batch."""

    def __init__(
        self,
        tx: StoreTransaction,
        registry: SagaRegistry,
        admission: Admission,
        changes: ChangeSet,
        settings: Settings,
    ) -> None:
        self._tx = tx
        self._registry = registry
        self._admission = admission
        self._changes = changes
        self._refusals = StartRefusals(tx, changes)
        self._preparer = StartPreparer(registry, changes, self._refusals)
        self._repeated = RepeatedStarts(tx, registry, changes, settings, self._refusals)
        self._plain_identities: set[str | SagaKey] = set()
        self._to_start: dict[str, PreparedStart] = {}

    async def process(self, work_items: Sequence[WorkItem], *, careful: bool) -> None:
        """
        Start each requested run once.

        Args:
            careful: whether conflicts are looked for before the runs are written.
        """
        if careful:
            await self._process_carefully(work_items)
            return
        plain = [work_item for work_item in work_items if self._is_plain(work_item)]
        if plain:
            await self._admission.refresh(self._tx)
        admitted = {each.run_id: each for each in plain if self._admit(each)}
        prepared_starts = await self._preparer.prepare(list(admitted.values()))
        for prepared in prepared_starts:
            self._start_with_key(prepared)
        refused = admitted.keys() - {each.work_item.run_id for each in prepared_starts}
        self._admission.give_back(refused, self._changes.admitted)
        self._changes.needing_care += [
            each for each in work_items if admitted.get(each.run_id) is not each
        ]

    def _is_plain(self, work_item: WorkItem) -> bool:
        """Whether it looks like the start of a new run that this worker can start."""
        return (
            work_item.delivery is not None
            and self._preparer.definition_id(work_item) is not None
            and self._admission.run_id_problem(work_item.run_id, self._changes.now) is None
        )

    def _admit(self, work_item: WorkItem) -> bool:
        """Give a start a slot; the second one of a run or of a key in a batch needs care."""
        key = start_of(work_item).key
        identities = {work_item.run_id} | ({(work_item.saga, key)} if key is not None else set())
        if identities & self._plain_identities or not self._admission.has_slot(work_item.saga):
            return False
        self._plain_identities |= identities
        self._admission.admit(work_item.run_id, work_item.saga, self._changes.admitted)
        return True

    def _start_with_key(self, prepared: PreparedStart) -> None:
        start, saga = start_of(prepared.work_item), prepared.work_item.saga
        if start.key is not None:
            request = KeyRequest(saga, start.key, start.run_id, prepared.plain_input)
            digest = digest_to_store(request, self._registry.encryption)
            self._changes.new_keys[start.run_id] = NewKey(saga, start.key, digest)
        self._changes.start(prepared.stored_run, prepared.events, prepared.work_item)

    async def _process_carefully(self, work_items: Sequence[WorkItem]) -> None:
        work_items = await self._with_valid_run_ids(work_items)
        without_definition = [
            work_item for work_item in work_items if self._preparer.definition_id(work_item) is None
        ]
        if without_definition:
            await self._refusals.await_definition_or_refuse(without_definition)
        prepared_starts = await self._preparer.prepare(work_items)
        key_owners = await self._reserve_keys(prepared_starts)
        for prepared in prepared_starts:
            run_id = prepared.stored_run.run.run_id
            key_owner = key_owners.get(run_id)
            if run_id in key_owners and key_owner is None:
                self._changes.defer(prepared.work_item)
            else:
                await self._resolve_key(prepared, key_owner)
        await self._set_existing_apart()
        if self._to_start:
            await self._admit_or_queue()
            self._start_all()
        await self._repeated.answer_all()

    async def start_with_incident(self, work_item: WorkItem, text: str) -> None:
        """Start an accepted run with an incident, without deciding it: that hits a bug."""
        prepared = self._preparer.prepare_blocked(work_item, IncidentCause.INTERNAL_ERROR, text)
        self._to_start[work_item.run_id] = prepared
        await self._set_existing_apart()
        if self._to_start:
            self._admission.admit(work_item.run_id, work_item.saga, self._changes.admitted)
            self._start_all()
        self._repeated.ignore_all()

    async def _with_valid_run_ids(self, work_items: Sequence[WorkItem]) -> list[WorkItem]:
        """Refuse starts of new runs whose id is too old or too far ahead; return the others."""
        problems = {
            work_item.run_id: problem
            for work_item in work_items
            if work_item.delivery is not None  # a stored start was checked when it was stored
            and (problem := self._admission.run_id_problem(work_item.run_id, self._changes.now))
        }
        if not problems:
            return list(work_items)
        existing = await self._tx.existing_runs(problems)
        problems = {
            run_id: problem for run_id, problem in problems.items() if run_id not in existing
        }
        for work_item in work_items:
            if work_item.run_id in problems and work_item.delivery is not None:
                self._refusals.refuse_run_id(work_item, problems[work_item.run_id])
        return [each for each in work_items if each.run_id not in problems or each.delivery is None]

    async def _reserve_keys(
        self, prepared_starts: Sequence[PreparedStart]
    ) -> dict[str, KeyOwner | None]:
        """
        Reserve the business keys of new runs.

        Returns:
            The owner of each requested key, by the id of the run that requests it. None: another
            transaction is about to reserve it, so its owner is not known yet.
        """
        key_requests = []
        for prepared in prepared_starts:
            start = start_of(prepared.work_item)
            if start.key is not None and prepared.comparable:
                saga = prepared.work_item.saga
                key_requests.append(KeyRequest(saga, start.key, start.run_id, prepared.plain_input))
        if not key_requests:
            return {}
        key_owners = await self._tx.reserve_keys(key_requests, self._registry.encryption)
        return {
            each.run_id: key_owner for each, key_owner in zip(key_requests, key_owners, strict=True)
        }

    async def _resolve_key(self, prepared: PreparedStart, key_owner: KeyOwner | None) -> None:
        """Start the run if its key is its own; otherwise it is a repeated start or a conflict."""
        work_item = prepared.work_item
        if key_owner is None:
            self._add_once(prepared)
            return
        is_owner = key_owner.run_id == work_item.run_id
        owner_text = f"Key {start_of(work_item).key!r} belongs to run {key_owner.run_id}"
        if work_item.fingerprint is not None:  # it was accepted
            if not is_owner:
                prepared = self._preparer.prepare_blocked(
                    work_item, IncidentCause.KEY_CONFLICT, f"{owner_text}.", without_key=True
                )
            self._add_once(prepared)
        elif key_owner.decryption_error:
            problem = f"{owner_text}, whose input {key_owner.decryption_error}."
            await self._refusals.dead_letter_undecryptable(work_item, problem)
        elif not key_owner.same_input:
            text = f"{owner_text}, with another input."
            self._changes.refuse(work_item, AnswerOutcome.CONFLICT, text, key_owner.run_id)
        elif not is_owner:
            self._repeated.add(prepared, key_owner.run_id)
        else:
            self._add_once(prepared)

    def _add_once(self, prepared: PreparedStart) -> None:
        run_id = prepared.work_item.run_id
        if run_id in self._to_start:
            self._repeated.add(prepared, run_id)
        else:
            self._to_start[run_id] = prepared

    async def _set_existing_apart(self) -> None:
        """Treat the starts whose runs exist, or are queued, as repeated ones."""
        if self._to_start:
            for run_id in sorted(await self._tx.existing_runs(self._to_start)):
                self._repeated.add(self._to_start.pop(run_id), run_id)

    async def _admit_or_queue(self) -> None:
        """Give the new runs their slots; queue those that have none, see `admission`."""
        if any(prepared.work_item.delivery for prepared in self._to_start.values()):
            await self._admission.refresh(self._tx)
        for run_id, prepared in list(self._to_start.items()):
            run = prepared.stored_run.run
            # A stored start has waited already; it was taken because there is a slot for it.
            if prepared.work_item.delivery is None or self._admission.has_slot(run.saga):
                self._admission.admit(run_id, run.saga, self._changes.admitted)
            else:
                self._admission.mark_queued(run.saga)
                self._changes.queue_accepted_start(self._to_start.pop(run_id).work_item, run)

    def _start_all(self) -> None:
        for prepared in self._to_start.values():
            self._changes.start(prepared.stored_run, prepared.events, prepared.work_item)
