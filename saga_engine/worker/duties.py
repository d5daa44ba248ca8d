"""
What a worker does besides taking deliveries: timers, recorded requests, commands left behind.

Each duty is one method that does a bounded piece of work and says whether there was any; `loop`
calls it again. Every worker does all of them; rows are claimed with SKIP LOCKED, so workers share
the work without knowing of each other.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial

from saga_engine.errors import StoreBusy, StoreTooMuch
from saga_engine.settings import Settings
from saga_engine.store import (
    backlog_counts,
    crash_suspects,
    definitions,
    engine_identity,
    outbox,
    partitions,
    pending_requests,
    retention,
    runs,
    stranded_starts,
)
from saga_engine.store.crash_suspects import Suspect
from saga_engine.store.database import Database, Transaction
from saga_engine.store.definitions import presence_of
from saga_engine.store.outbox import LeftBehind
from saga_engine.store.partitions import Patience
from saga_engine.store.pending_requests import Inboxed
from saga_engine.telemetry.events import BacklogCounted, FaultFound, Tell, described
from saga_engine.worker import decode_pending
from saga_engine.worker.adaptive_limit import Portion
from saga_engine.worker.batch_runner import AWAY, Turnover
from saga_engine.worker.batch_transaction import FAULT_PAUSE, Batch
from saga_engine.worker.outbox_publisher import Outbound
from saga_engine.worker.registry import Catalogue
from saga_engine.worker.work_item import Arrival, Intake, Unread


class Duties:
    """The periodic work of one worker."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        turnover: Turnover,
        outbound: Outbound,
        settings: Settings,
        tell: Tell,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._turnover = turnover
        self._outbound = outbound
        self._settings = settings
        self._tell = tell
        self._lengths = decode_pending.lengths(settings)
        self._presence = presence_of(settings)
        self._waiting = Portion(settings.batch_size)
        self._due = Portion(settings.batch_size)
        self._swept = Portion(settings.batch_size)
        self._starts_first = False

    async def waiting(self) -> bool:
        """
        Deal with what waits in PostgreSQL: runs that are due, then requests that were recorded.

        Each in a transaction of its own: whatever is wrong with the requests, timers fire. Most
        of the time there is neither, so one short transaction looks first.
        """
        if self._outbound.blocked:
            self._turnover.admission.cut_off()  # until now; the next look says so again
        due, recorded = await self._turnover.look(self._what_waits)
        woken = due and await self._wake_due()
        return (recorded and await self._take_what_was_recorded()) or woken

    async def _what_waits(self, tx: Transaction) -> tuple[bool, bool]:
        """
        Whether runs are due, and whether there may be requests.

        While runs are due, the requests are not looked at: somebody may have locked their table.
        """
        definitions = self._catalogue.ids
        due = bool(await runs.due(tx, definitions, 1))
        return due, due or await pending_requests.anything(tx, self._catalogue.names, definitions)

    async def _wake_due(self) -> bool:
        try:
            return await self._due.learn(self._turnover.once(self._take_due)) > 0
        except AWAY:
            raise
        except StoreTooMuch:
            return True  # it goes on at once, with half as many
        except Exception as error:  # noqa: BLE001 - one run's trouble must not hold up the others
            self._tell(FaultFound(operation="waiting", problem=described(error)))
            return await self._wake_one_by_one()

    async def _take_what_was_recorded(self) -> bool:
        try:
            return await self._take_all_or_what_is_free()
        except AWAY:
            raise
        except StoreTooMuch:
            return True  # their runs are large: it goes on at once, with half as many
        except Exception as error:  # noqa: BLE001 - the same
            self._tell(FaultFound(operation="waiting", problem=described(error)))
            return await self._take_one_recorded()

    async def _take_all_or_what_is_free(self) -> bool:
        try:
            return await self._waiting.learn(self._turnover.once(self._take_recorded)) > 0
        except StoreBusy:
            return await self._past_the_busy()

    async def _past_the_busy(self) -> bool:
        """
        Somebody holds what a recorded request needs besides its run: put that request by.

        While it takes longer to find out about some than they are left alone, the batch never gets
        through; starts need nothing of theirs.
        """
        worked = False
        with suppress(StoreBusy):  # a start is held too, and will be put by when it is the oldest
            worked |= await self._waiting.learn(self._turnover.once(self._take_starts)) > 0
        return await self._take_one_recorded() or worked

    async def _wake_one_by_one(self) -> bool:
        """Wake each due run alone; one that cannot be woken rests for a while."""
        async with self._database.transaction() as tx:
            due = await runs.due(tx, self._catalogue.ids, self._settings.batch_size)
        for run_id in due:
            try:
                await self._turnover.once(partial(_wake, run_id))
            except AWAY:
                raise
            except Exception as error:  # noqa: BLE001 - the same
                problem = described(error)
                self._tell(FaultFound(operation="wake", problem=problem, run_id=run_id))
                async with self._database.transaction() as tx:
                    await runs.rest(tx, run_id, FAULT_PAUSE)
        return bool(due)

    async def _take_one_recorded(self) -> bool:
        """Take in the oldest request alone; one that breaks its batch is refused."""
        # In turn, because either kind may come without end.
        self._starts_first = not self._starts_first
        seen: list[Inboxed] = []

        async def take(tx: Transaction, batch: Batch) -> int:
            seen.extend(await self._oldest_recorded(tx))
            return await self._take_in(batch, seen)

        try:
            return await self._turnover.once(take) > 0
        except StoreBusy:
            await self._turnover.once(partial(self._settle_alone, seen, _put_by))
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - the same
            run_id = seen[0].run_id if seen else ""
            self._tell(FaultFound(operation="recorded", problem=described(error), run_id=run_id))
            await self._refuse_alone(seen)
        return True

    async def _refuse_alone(self, seen: Sequence[Inboxed]) -> None:
        """
        Begin the start that broke its batch as a run with an incident, or refuse the request.

        One that cannot even be refused rests.
        """
        for settle in (Batch.settle_as_fault, Batch.refuse_as_fault):
            try:
                await self._turnover.once(partial(self._settle_alone, seen, settle))
                break
            except AWAY:
                raise
            except Exception as error:  # noqa: BLE001 - the same
                self._tell(FaultFound(operation="recorded", problem=described(error)))
        else:
            async with self._database.transaction() as tx:
                await pending_requests.rest(tx, [item.id for item in seen], FAULT_PAUSE)

    async def _settle_alone(
        self,
        seen: Sequence[Inboxed],
        settle: Callable[[Batch, Arrival], Awaitable[None]],
        tx: Transaction,
        batch: Batch,
    ) -> None:
        """Take the same request out again, and only settle it."""
        if await self._oldest_recorded(tx) != seen:
            raise StoreBusy("Another worker has taken that request. Nothing was done.")
        for item in seen:
            found = decode_pending.read_one(item, self._settings)
            await settle(batch, found.arrival if isinstance(found, Unread) else found)

    async def _take_in(self, batch: Batch, items: Sequence[Inboxed]) -> int:
        intake = decode_pending.read(items, self._settings)
        if alone := [each for each in intake.arrivals if batch.is_suspect(each.run_id)]:
            for each in alone:
                batch.put_by(each)
            intake.arrivals = [each for each in intake.arrivals if each not in alone]
        if any(True for _ in intake):
            await batch.take(intake, patient=False)
        return len(items)

    async def _take_due(self, _tx: Transaction, batch: Batch) -> int:
        """
        Wake the runs that are due, unless we are cut off from the broker.

        Then nobody knows whether a command was answered, and what would follow could not leave: an
        outage costs each run one attempt, not all of them.
        """
        if self._outbound.blocked:
            return 0
        return await batch.take_due(self._due.size)

    async def _take_recorded(self, tx: Transaction, batch: Batch) -> int:
        limit, definitions = self._waiting.size, self._catalogue.ids
        items = await self._starts(tx, limit)
        # After the starts: what is asked of a run is held back until its start is taken out.
        items += await pending_requests.take(
            tx,
            definition_ids=definitions,
            limit=limit,
            lengths=self._lengths,
            most=self._settings.batch_bytes,
        )
        return await self._take_in(batch, items)

    async def _take_starts(self, tx: Transaction, batch: Batch) -> int:
        return await self._take_in(batch, await self._starts(tx, self._waiting.size))

    async def _starts(self, tx: Transaction, limit: int) -> list[Inboxed]:
        """Take out up to *limit* starts whose turn it is."""
        admission, definitions = self._turnover.admission, self._catalogue.ids
        waiting = await pending_requests.sagas_waiting(tx, self._catalogue.names, definitions)
        if not waiting:
            return []
        await admission.look(tx)
        turns = admission.turns(waiting, limit)
        return await pending_requests.take_starts(
            tx,
            turns,
            definition_ids=definitions,
            limit=limit,
            lengths=self._lengths,
            most=self._settings.batch_bytes,
        )

    async def _oldest_recorded(self, tx: Transaction) -> list[Inboxed]:
        """Take out one thing, if there is any: a start, or something else if it is its turn."""
        if self._starts_first:
            return await self._oldest_start(tx) or await self._oldest_other(tx)
        return await self._oldest_other(tx) or await self._oldest_start(tx)

    async def _oldest_other(self, tx: Transaction) -> list[Inboxed]:
        definitions, bounds = self._catalogue.ids, self._lengths
        return await pending_requests.take(tx, definition_ids=definitions, limit=1, lengths=bounds)

    async def _oldest_start(self, tx: Transaction) -> list[Inboxed]:
        """Take out a start without regard to its turn."""
        definitions, bounds = self._catalogue.ids, self._lengths
        waiting = await pending_requests.sagas_waiting(tx, self._catalogue.names, definitions)
        turns = dict.fromkeys(sorted(waiting), 1)
        return await pending_requests.take_starts(
            tx, turns, definition_ids=definitions, limit=1, lengths=bounds
        )

    async def returned(self) -> bool:
        """Tell runs of their commands that no queue is bound for."""
        limit = self._settings.batch_size
        came_back = self._outbound.returned[:limit]
        del self._outbound.returned[:limit]
        if not came_back:
            return False
        # Not after it: a command that the run takes for undelivered must never be sent again.
        self._outbound.confirmed.extend(number for number, _ in came_back)
        await self._turnover.take(Intake([arrival for _, arrival in came_back]))
        return True

    async def sweep(self) -> bool:
        """Send again what was committed but never confirmed, whoever committed it."""
        if self._outbound.blocked:
            return False
        left: list[LeftBehind] = []

        async def claim() -> int:
            age, most = timedelta(seconds=self._settings.outbox_age), self._settings.batch_bytes
            async with self._database.transaction() as tx:
                size = self._swept.size
                left.append(await outbox.claim_left_behind(tx, age, size, most=most))
            return left[0].found

        found = await self._swept.learn(claim())
        await self._outbound.commands(left[0].claimed, again=True)
        return found > 0

    async def suspects(self) -> bool:
        """Deal with what waits for runs that have ended a worker, each of them alone."""
        async with self._database.transaction() as tx:
            self._catalogue.suspected = frozenset(await crash_suspects.every(tx))
            found = await crash_suspects.with_work(tx) if self._catalogue.suspected else {}
        for suspect in found.values():
            await self._take_suspect(suspect)
        return False

    async def _take_suspect(self, suspect: Suspect) -> None:
        run_id, definitions = suspect.run_id, self._catalogue.ids
        async with self._database.transaction() as tx:
            await crash_suspects.pardon(tx, run_id)
            again = await crash_suspects.among(tx, {run_id})

        async def take(tx: Transaction, batch: Batch) -> None:
            for each in again.values():
                items = await crash_suspects.take_of(tx, run_id, definitions, self._lengths)
                intake = decode_pending.read(items, self._settings)
                if intake.unread:
                    await batch.take(intake, patient=True)
                else:
                    await batch.take_suspect(each, next(iter(intake.arrivals), None))

        try:
            await self._turnover.once(take)
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - one run's trouble must not hold up the others
            problem = described(error)
            self._tell(FaultFound(operation="suspects", problem=problem, run_id=run_id))

    async def flush(self) -> bool:
        """Delete confirmed outbox rows when no batch has come along to do it."""
        if self._outbound.confirmed:
            await self._turnover.once(_nothing)
        return False

    async def maintenance(self) -> bool:
        """Read the token keys, count for the gauges, forget old suspects."""
        async with self._database.transaction() as tx:
            self._outbound.keys = await engine_identity.token_keys(tx)
        if self._catalogue.suspected:
            async with self._database.transaction() as tx:
                await crash_suspects.expire(tx)
        async with self._database.transaction() as tx:
            counts = await backlog_counts.counts(tx, self._settings.count_max)
            self._tell(_backlog(counts, len(self._catalogue.suspected)))
        return False

    async def presence(self) -> bool:
        """Say which definitions this worker has; it counts as having them for a while."""
        async with self._database.transaction() as tx:
            await definitions.seen(tx, self._catalogue.ids, self._presence)
        return False

    async def partitions(self) -> bool:
        """Make the partitions of coming months, drop the months that are past their retention."""
        settings = self._settings
        days = settings.retention_days
        await partitions.maintain(
            self._database,
            # As long as its ids may still arrive, a month stays.
            retention_days=max(days, settings.run_id_age_days + 1) if days else 0,
            months_ahead=settings.partitions_ahead,
            patience=Patience(settings.partition_lock_timeout, settings.partition_lock_tries),
        )
        return False

    async def _set_unknown_starts_aside(self, tx: Transaction, batch: Batch) -> int:
        """Make dead letters of starts whose definition no worker has loaded in all their days."""
        days = self._settings.run_id_age_days
        items = await stranded_starts.take_unknown(
            tx, timedelta(days=days), self._settings.batch_size, self._lengths
        )
        text = (
            f"No worker has loaded the definition of this start within {days} days"
            " (run_id_age_days). Load it in a worker, then start again."
        )
        found = [decode_pending.read_one(item, self._settings) for item in items]
        arrivals = [each.arrival if isinstance(each, Unread) else each for each in found]
        unread = [Unread(each, "unknown_saga", text) for each in arrivals]
        if unread:
            await batch.take(Intake(unread=unread), patient=False)
        return len(items)

    async def purge(self) -> bool:
        """Delete what is past its days: settled dead letters, acts, starts of no definition."""
        settings = self._settings
        await self._turnover.once(self._set_unknown_starts_aside)
        days = {"dead_letter_days": settings.dead_letter_days, "audit_days": settings.audit_days}
        await retention.purge(self._database, **days)
        return False


def _backlog(counts: backlog_counts.Counts, suspects: int) -> BacklogCounted:
    letters: Counter[str] = Counter()
    for (_, reason), number in counts.dead_letters.items():
        letters[reason] += number
    return BacklogCounted(
        runs={(saga, status.value): number for (saga, status), number in counts.runs.items()},
        run_oldest_s=counts.oldest_run_age,
        incidents_open=counts.open_incidents,
        dead_letters_open=letters,
        messages_parked=counts.parked,
        starts_waiting=counts.starts_waiting,
        starts_stranded=counts.starts_stranded,
        code_suspects=suspects,
        outbox_pending=counts.outbox_pending,
        outbox_oldest_s=counts.outbox_oldest_age,
        timers_pending=counts.timers_pending,
        timer_overdue_s=counts.timer_overdue,
        runs_unpartitioned=counts.unpartitioned,
    )


async def _wake(run_id: str, _tx: Transaction, batch: Batch) -> None:
    await batch.wake(run_id)


async def _nothing(_tx: Transaction, _batch: Batch) -> int:
    return 0


async def _put_by(batch: Batch, arrival: Arrival) -> None:
    batch.put_by(arrival)
