"""What a handler can know about its command."""

from uuid import uuid4

from saga_engine.participant import CommandContext
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.payments_participant import (
    FAR_FUTURE,
    make_command,
)


async def test_a_handler_without_a_database_gets_the_idempotency_key_to_pass_on(payments, executor):
    run_id = uuid4()
    for attempt in (1, 2):
        assert (await executor(make_command(run_id, attempt=attempt)))[0] is Outcome.SUCCEEDED
    assert payments.contexts[0] == CommandContext(
        command="payment.charge",
        run_id=run_id,
        saga="place-order",
        step="charge",
        attempt=1,
        direction=Direction.ACTION,
        idempotency_key=f"{run_id}/charge/action/1",
        deadline=FAR_FUTURE,
    )
    assert payments.contexts[1].idempotency_key == payments.contexts[0].idempotency_key
