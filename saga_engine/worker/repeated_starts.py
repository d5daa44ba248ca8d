"""
Repeated starts: answers a start whose run or queued start exists already.

The same saga, key and input get the status of the existing run; anything else is a conflict of the
run id. Conflicts of business keys are decided in `starts`. Inputs are compared as they were before
encryption, because the same input may be encrypted with different keys. An input that cannot be
decrypted here cannot be compared, so that start is dead-lettered.
"""

from collections.abc import Collection
from uuid import UUID

from saga_engine.decider.run import Run
from saga_engine.payload.encryption import EncryptionError, input_associated_data, is_encrypted
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.run_result import RunResult, result_of_run
from saga_engine.settings import Settings
from saga_engine.store import business_keys
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.vocabulary import IgnoredReason, Status
from saga_engine.worker import decode_pending
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.start_preparation import PreparedStart
from saga_engine.worker.start_refusals import StartRefusals
from saga_engine.worker.work_item import UnreadableRequest, WorkItem, start_of


class RepeatedStarts:
    """The repeated starts of one batch, each with the id of the run that it repeats."""

    def __init__(
        self,
        tx: StoreTransaction,
        registry: SagaRegistry,
        changes: ChangeSet,
        settings: Settings,
        refusals: StartRefusals,
    ) -> None:
        self._tx = tx
        self._registry = registry
        self._changes = changes
        self._settings = settings
        self._refusals = refusals
        self._starts: list[tuple[PreparedStart, str]] = []

    def add(self, prepared: PreparedStart, run_id: str) -> None:
        """Add a start that repeats the start of run *run_id*."""
        self._starts.append((prepared, run_id))

    def ignore_all(self) -> None:
        """Ignore the repeated starts without an answer."""
        for prepared, _ in self._starts:
            self._changes.ignore(prepared.work_item, IgnoredReason.DUPLICATE)

    async def answer_all(self) -> None:
        """Compare each start with the run or the queued start that it repeats, and answer it."""
        if not self._starts:
            return
        run_ids = {run_id for _, run_id in self._starts}
        stored_runs = await self._tx.read_runs(run_ids, max_bytes=self._settings.max_batch_bytes)
        # An accepted start that is queued has no row of its run yet.
        queued_starts = await self._load_queued_starts(run_ids - stored_runs.keys())
        for prepared, run_id in self._starts:
            stored_run, queued_start = stored_runs.get(run_id), queued_starts.get(run_id)
            try:
                differs = self._differs(
                    prepared, stored_run.run if stored_run else None, queued_start
                )
            except EncryptionError as error:
                await self._refuse_incomparable(prepared.work_item, run_id, error)
                continue
            if differs:
                await self._refusals.refuse_conflict(prepared.work_item, run_id)
                continue
            self._changes.ignore(prepared.work_item, IgnoredReason.DUPLICATE)
            queued_result = (
                _queued_result(queued_start) if isinstance(queued_start, WorkItem) else None
            )
            result = result_of_run(stored_run.run) if stored_run else queued_result
            self._changes.answer(
                prepared.work_item.answer_to, AnswerOutcome.EXISTING, run_id, result
            )

    async def _refuse_incomparable(
        self, work_item: WorkItem, run_id: str, error: EncryptionError
    ) -> None:
        if work_item.fingerprint is None:
            problem = f"The input of run {run_id} {error}."
            await self._refusals.dead_letter_undecryptable(work_item, problem)
        else:
            self._changes.ignore(
                work_item, IgnoredReason.DUPLICATE
            )  # it was answered when it was accepted

    async def _load_queued_starts(
        self, run_ids: Collection[str]
    ) -> dict[str, WorkItem | UnreadableRequest]:
        body_limits = decode_pending.body_limits(self._settings)
        requests = await self._tx.read_starts(run_ids, body_limits)
        return {
            run_id: decode_pending.decode_request(request, self._settings)
            for run_id, request in requests.items()
        }

    def _differs(
        self,
        prepared: PreparedStart,
        run: Run | None,
        queued_start: WorkItem | UnreadableRequest | None,
    ) -> bool:
        """Whether a start asks for something else than the run or queued start with its id."""
        if run is not None:
            return not self._matches_run(prepared, run)
        if queued_start is None:
            return False
        if isinstance(queued_start, UnreadableRequest):
            return True
        work_item = prepared.work_item
        queued_trigger, requested_trigger = start_of(queued_start), start_of(work_item)
        if (queued_start.saga, queued_trigger.key) != (work_item.saga, requested_trigger.key):
            return True
        associated_data = input_associated_data(queued_start.saga, work_item.run_id)
        plain_input = self._registry.encryption.decrypt(queued_trigger.input, associated_data)
        return not business_keys.equal_inputs(prepared.plain_input, plain_input)

    def _matches_run(self, prepared: PreparedStart, run: Run) -> bool:
        """Whether a run has the saga, the key and the input that a start asks for."""
        if (prepared.work_item.saga, start_of(prepared.work_item).key) != (run.saga, run.key):
            return False
        if is_encrypted(run.input) and prepared.stored_run.run.input == run.input:
            return True
        associated_data = input_associated_data(run.saga, run.run_id)
        plain_input = self._registry.encryption.decrypt(run.input, associated_data)
        return business_keys.equal_inputs(prepared.plain_input, plain_input)


def _queued_result(start: WorkItem) -> RunResult | None:
    """What a client sees of a run whose start is queued; None as long as it has no version."""
    if start.version is None:
        return None
    return RunResult(
        run_id=UUID(start.run_id),
        status=Status.RUNNING,
        saga=start.saga,
        version=start.version,
        key=start_of(start).key,
    )
