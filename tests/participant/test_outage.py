"""During an outage of its database a participant starts no command."""

from dataclasses import replace

from saga_engine.telemetry.events import (
    DatabaseRecovered,
    DatabaseUnavailable,
    HandlerFailed,
    InternalErrorCaught,
    MessagesConsumed,
)
from saga_engine.vocabulary import (
    Outcome,
)
from tests.kit.participant_service import engine_stub, running_service
from tests.kit.payments_participant import (
    PaymentsParticipant,
    booking_rows,
    bookings_engine,
    make_command,
)
from tests.kit.programs import sleep
from tests.kit.proxy import running_proxy
from tests.kit.servers import running_postgres


async def test_a_database_outage_uses_no_attempt_of_a_command_that_has_not_started(
    broker_url,
):
    concurrency, number = 5, 200
    commands = [make_command(payload={"order_id": f"o-{each}"}) for each in range(number)]
    async with (
        running_postgres(use_tcp=True) as server,
        running_proxy(server.url) as proxy,
        bookings_engine(server.url) as user_engine,
        engine_stub(broker_url) as engine,
        running_service(
            broker_url, PaymentsParticipant(proxy.url), participant_concurrency=concurrency
        ) as running,
    ):
        for asked in commands:
            await engine.send(asked)
        replies = await engine.take_replies(20)
        await proxy.refuse()
        await running.events.wait_until(lambda event: isinstance(event, DatabaseUnavailable))
        checks = await running.service.readiness()
        assert checks["database of payments"]
        await sleep(2)
        await proxy.accept()
        replies += await engine.take_replies(number - len(replies))
        failed = {each.command_ref.run_id for each in replies if each.outcome is Outcome.FAILED}
        assert len(failed) <= concurrency, "only what was in a handler at that moment"
        for asked in commands:
            if asked.run_id in failed:
                await engine.send(replace(asked, attempt=2))
        assert all(e.outcome is Outcome.SUCCEEDED for e in await engine.take_replies(len(failed)))
        assert len(await booking_rows(user_engine)) == number
        emitted = running.events.matching(DatabaseUnavailable)
        assert [each.operation for each in emitted].count("participant") == 1
        assert len(running.events.matching(DatabaseRecovered)) == 1
        assert not running.events.matching(InternalErrorCaught)
        assert not running.events.matching(HandlerFailed)
        assert not any(each.redelivered for each in running.events.matching(MessagesConsumed))
        assert (await running.service.readiness())["database of payments"] is None
