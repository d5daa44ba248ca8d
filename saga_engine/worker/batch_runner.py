"""
One batch from beginning to end: transaction, commit, publish. The engine room of the worker.

Whatever wants something done with runs (deliveries, timers, recorded requests) comes through here.
A database that is away is waited for, because a delivery in hand costs nothing; whether it is away
or only too slow for so much cannot be seen, so it is given half of it then. A batch that the
database refuses is halved until the arrival that breaks it is alone, and that one is set aside; so
is a batch that needs what somebody holds, and then that one is put by.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from saga_engine.errors import SchemaMismatch, StoreBusy, StoreUnavailable
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings
from saga_engine.store import outbox, runs
from saga_engine.store.database import Database, Transaction
from saga_engine.telemetry.events import (
    BatchProcessed,
    DatabaseTroubled,
    FaultFound,
    Tell,
    described,
)
from saga_engine.worker.admission import Admission
from saga_engine.worker.batch_transaction import Batch
from saga_engine.worker.change_set import Ledger
from saga_engine.worker.crash_suspects import Suspected
from saga_engine.worker.emit import account
from saga_engine.worker.flush import write
from saga_engine.worker.outbox_publisher import Outbound
from saga_engine.worker.periodic import PAUSE_MAX
from saga_engine.worker.registry import Catalogue
from saga_engine.worker.work_item import (
    Arrival,
    Incoming,
    Intake,
    Letter,
    Question,
    Unread,
    is_signed,
)

PAUSE_MIN, PAUSE_SURE = 0.05, 1.0
"""
Seconds between two tries of a batch at the least: doubling from the first, up to the second. That
the database answers others shows that it is there, not that it takes this one.
"""

AWAY = (StoreUnavailable, SchemaMismatch)
"""What is waited out: the database is out of reach, or not what it should be yet."""

Work = Callable[[Transaction, Batch], Awaitable[int | None]]
Answer = TypeVar("Answer")


class Turnover:
    """Turns work into committed decisions, and those into messages."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        outbound: Outbound,
        settings: Settings,
        tell: Tell,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._outbound = outbound
        self._settings = settings
        self._tell = tell
        self._reached = asyncio.Event()
        self.admission = Admission(catalogue, settings)

    async def take(self, intake: Intake, failures: int = 0) -> list[Delivery]:
        """
        Deal with everything in *intake*, however long the database is away.

        Args:
            failures: how often that was tried before, as part of a larger one.

        Returns:
            The deliveries that could not even be set aside. All others are committed and can be
            acknowledged; these cannot, and go to another worker when this one ends.
        """
        busy, before = 0, failures
        while True:
            way = _WAYS[busy]
            if _number(intake) > 1 and (way is _put_by or failures > before):
                return await self._divide(intake, failures)
            try:
                await self.once(partial(way, intake))
            except AWAY as error:
                busy = (busy + 1) % len(_WAYS) if isinstance(error, StoreBusy) else 0
                if busy:
                    continue
                self._tell(DatabaseTroubled(operation="batch", problem=str(error)))
                failures += 1
                await self._pause(failures)
            except Exception as error:  # noqa: BLE001 - refused data or a bug of ours, set aside below
                return await self._find(intake, error)
            else:
                return []

    async def once(self, work: Work) -> int:
        """
        Run one transaction and publish what it decided; the number that *work* returns.

        Raises:
            StoreUnavailable: nothing is known of the commit.
            StoreRefused: nothing was written.
        """
        confirmed, self._outbound.confirmed = self._outbound.confirmed, []
        begun = time.perf_counter()
        try:
            with self.admission.transaction() as entering:
                async with self._database.transaction() as tx:
                    ledger = Ledger(await runs.clock(tx), entering)
                    batch = Batch(tx, self._catalogue, self.admission, ledger, self._settings)
                    number = await work(tx, batch)
                    await write(tx, ledger, self._settings)
                    await outbox.delete(tx, confirmed)
                    decided = time.perf_counter()
        except BaseException as error:
            self._outbound.confirmed.extend(confirmed)
            self._out_of_reach(error)
            raise
        committed = time.perf_counter()
        self._in_reach()
        await self._after(ledger)
        if number:
            self._tell(
                BatchProcessed(
                    triggers=number,
                    decide_s=decided - begun,
                    commit_s=committed - decided,
                    publish_s=time.perf_counter() - committed,
                )
            )
        return number or 0

    async def look(self, question: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """
        Run one transaction that only reads; its answer.

        Raises:
            StoreUnavailable: it could not be read.
        """
        try:
            async with self._database.transaction() as tx:
                answer = await question(tx)
        except BaseException as error:
            self._out_of_reach(error)
            raise
        self._in_reach()
        return answer

    def _in_reach(self) -> None:
        """The database has answered: a batch that waits for it may try again."""
        self._reached.set()
        self._reached = asyncio.Event()
        self.admission.reconnected()

    def _out_of_reach(self, error: BaseException) -> None:
        """See whether a transaction failed because the database did not answer."""
        if isinstance(error, AWAY) and not isinstance(error, StoreBusy):
            self.admission.cut_off()

    async def _after(self, ledger: Ledger) -> None:
        """What follows a commit; a bug in it must not look as if nothing had been committed."""
        try:
            account(self._tell, ledger)
            self.admission.learn(ledger)
            await self._outbound.send(ledger.outcome)
        except Exception as error:  # noqa: BLE001 - told; commands are swept, whoever waits asks again
            self._tell(FaultFound(operation="publish", problem=described(error)))

    async def _pause(self, failures: int) -> None:
        """Wait longer each time, but not on once the database has answered another transaction."""
        reached = self._reached
        longest = min(PAUSE_MAX, PAUSE_MIN * 2 ** min(failures, 16))
        least = min(PAUSE_SURE, longest / 2)
        await asyncio.sleep(least)
        try:
            async with asyncio.timeout(longest - least):
                await reached.wait()
        except TimeoutError:
            pass  # it is tried again

    async def _divide(self, intake: Intake, failures: int = 0) -> list[Delivery]:
        """One thing breaks the batch, or all are too much: halve it, in the end to a single one."""
        items = _items(intake)
        half = len(items) // 2
        first = await self.take(_intake_of(items[:half]), failures)
        return first + await self.take(_intake_of(items[half:]))

    async def _find(self, intake: Intake, error: Exception) -> list[Delivery]:
        """Take what breaks a batch, or may end the worker, apart from the rest."""
        if isinstance(error, Suspected):
            return await self._take_apart(intake, error.run_ids)
        if _number(intake) > 1:
            return await self._divide(intake)
        return await self._set_aside(intake, error)

    async def _take_apart(self, intake: Intake, run_ids: frozenset[str]) -> list[Delivery]:
        """Take what belongs to runs that have ended a worker last, and each run alone."""
        alone: dict[str, list[Arrival]] = {run_id: [] for run_id in sorted(run_ids)}
        others = []
        for item in intake:
            if isinstance(item, Arrival) and item.run_id in alone:
                alone[item.run_id].append(item)
            else:
                others.append(item)
        left = await self.take(_intake_of(others)) if others else []
        for arrivals in alone.values():
            left += await self.take(Intake(arrivals))
        return left

    async def _set_aside(self, intake: Intake, error: Exception) -> list[Delivery]:
        """Make a dead letter of the one thing that cannot be taken."""
        self._tell(FaultFound(operation="batch", problem=described(error)))
        for arrival in intake.arrivals:
            if arrival.delivery is not None:
                text = f"The engine could not handle it: {type(error).__name__}."
                letter = Letter(
                    *(arrival.delivery, "engine_fault", text, arrival.run_id, arrival.answer_to),
                    signed=is_signed(arrival),
                )
                return await self.take(Intake(letters=[letter]))
        return [letter.delivery for letter in intake.letters]


async def _taken(intake: Intake, _: Transaction, batch: Batch, *, patient: bool) -> int:
    await batch.take(intake, patient=patient)
    return len(intake.arrivals)


async def _put_by(intake: Intake, _: Transaction, batch: Batch) -> int:
    for arrival in intake.arrivals:
        batch.put_by(arrival)
    others = Intake(questions=intake.questions, letters=intake.letters)
    await batch.take(others, patient=True)
    return len(intake.arrivals)


_WAYS = (partial(_taken, patient=True), partial(_taken, patient=False), _put_by)
"""
How an intake is taken while somebody else holds a row that it needs: waiting for that; past the
runs that are held; and, alone, by touching nothing but what keeps it for later. If even that is
held, a whole table is, and it begins again.
"""


def _number(intake: Intake) -> int:
    return len(_items(intake))


def _items(intake: Intake) -> list[Incoming]:
    return list(intake)


def _intake_of(items: Iterable[Incoming]) -> Intake:
    intake = Intake()
    for item in items:
        match item:
            case Arrival():
                intake.arrivals.append(item)
            case Question():
                intake.questions.append(item)
            case Letter():
                intake.letters.append(item)
            case Unread():
                intake.unread.append(item)
    return intake
