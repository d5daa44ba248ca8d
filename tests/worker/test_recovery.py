"""What is in flight is sent again on request: the same attempt, with its whole timeout."""

from dataclasses import replace
from datetime import timedelta

from saga_engine.protocol.topology import COMMANDS, participant_queue
from saga_engine.store import outbox, recovery
from saga_engine.telemetry.events import AttemptSent, MessagesPublished
from saga_engine.vocabulary import Status
from tests.kit.connections import raw_channel
from tests.kit.engine import no_reply, reject, succeed
from tests.kit.parcels import parcels
from tests.kit.programs import sleep
from tests.kit.promises import check_promises

EAGER = {"outbox_resend_after": 0.4, "broker_confirm_timeout": 0.3}


def same(again, first):
    """Whether it is the same attempt; its deadline is a new one."""
    assert again.command.deadline > first.command.deadline
    sent = replace(first.command, deadline=again.command.deadline)
    return (again.command, again.correlation_id) == (sent, first.correlation_id)


async def test_a_command_in_flight_is_sent_again_as_the_attempt_it_was(anywhere):
    worker, shop = await anywhere.worker(**EAGER), await anywhere.shop()
    asker = await anywhere.asker()
    shop.answers["parcel.pack"] = no_reply
    run_id = await asker.start()
    [first] = await shop.until("parcel.pack")
    done = await recovery.resend_in_flight(anywhere.database)
    assert (done.runs, done.commands) == (1, 1)
    _, again = await shop.until("parcel.pack", 2)
    assert same(again, first)
    await shop.publish(*succeed(first), *succeed(again))
    assert await worker.facts.finished(run_id) == Status.COMPLETED
    assert len(worker.facts.of(AttemptSent, step="pack")) == 1


async def test_what_became_overdue_while_nobody_worked_has_its_whole_timeout_again(engine):
    saga = parcels(timeout=timedelta(seconds=2))
    worker, shop, asker = await engine.worker(saga), await engine.shop(), await engine.asker()
    shop.answers["parcel.pack"] = no_reply
    run_id = await asker.start()
    await shop.until("parcel.pack")
    await worker.crash()
    await sleep(2.1)
    await recovery.resend_in_flight(engine.database)
    shop.answers.clear()
    worker = await engine.worker(saga, **EAGER)
    assert await worker.facts.finished(run_id) == Status.COMPLETED
    assert not worker.facts.of(AttemptSent, step="pack"), "it cost an attempt"
    await check_promises(engine.database)


async def test_a_compensation_in_flight_is_sent_again(engine):
    worker, shop, asker = await engine.worker(**EAGER), await engine.shop(), await engine.asker()
    shop.answers["parcel.send"] = reject
    shop.answers["parcel.unpack"] = no_reply
    run_id = await asker.start()
    [first] = await shop.until("parcel.unpack")
    shop.answers.clear()
    assert (await recovery.resend_in_flight(engine.database)).commands == 1
    _, again = await shop.until("parcel.unpack", 2)
    assert same(again, first)
    assert await worker.facts.finished(run_id) == Status.COMPENSATED


async def test_what_comes_back_when_it_is_sent_again_may_have_been_done_before(anywhere):
    worker, shop = await anywhere.worker(**EAGER), await anywhere.shop()
    asker = await anywhere.asker()
    shop.answers["parcel.pack"] = no_reply  # it is done, and the answer is lost
    run_id = await asker.start()
    await shop.until("parcel.pack")
    async with raw_channel(anywhere.broker_url) as channel:
        way = {"queue": participant_queue("shop"), "exchange": COMMANDS}
        await channel.queue_unbind(**way, routing_key="parcel.pack")
        await recovery.resend_in_flight(anywhere.database)
        await worker.facts.until(MessagesPublished, outcome="returned")
        await asker.ask("cancel", run_id=run_id, by="ada", reason="it takes too long")
    assert await worker.facts.finished(run_id) == Status.COMPENSATED
    assert "parcel.unpack" in shop.names


async def test_twice_is_once_and_what_is_settled_meanwhile_is_not_sent(engine):
    worker, shop, asker = await engine.worker(), await engine.shop(), await engine.asker()
    shop.answers["parcel.tell"] = no_reply
    run_id = await asker.start()
    [command] = await shop.until("parcel.tell")
    for _ in range(3):
        assert (await recovery.resend_in_flight(engine.database)).commands == 1
    async with engine.database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 1
    await shop.publish(*succeed(command))
    assert await worker.facts.finished(run_id) == Status.COMPLETED
    assert (await recovery.resend_in_flight(engine.database)).runs == 0
