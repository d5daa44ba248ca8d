"""What docs/protocol.md says a participant remembers, the barrier of the kit remembers."""

from pathlib import Path

from saga_engine.vocabulary import Outcome
from tests.kit.payments_participant import (
    booking_rows,
    bookings_engine,
    direct_executor,
    make_command,
)

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "protocol.md").read_text().split())


async def test_a_failed_command_is_not_recorded_and_runs_again_with_the_same_key(
    database_url,
):
    assert (
        "Remember `succeeded` and `rejected`; a `failed` is not remembered: the engine sends the"
        " same key again because it wants the command tried again."
    ) in PAGE
    async with bookings_engine(database_url) as engine, direct_executor(engine) as (_, executor):
        broken = make_command(payload={"order_id": "o-1", "card": "broken"})
        outcomes = [(await executor(broken))[0] for _ in range(2)]
        assert outcomes == [Outcome.FAILED] * 2
        retried = make_command(broken.run_id, attempt=2)
        assert (await executor(retried))[0] is Outcome.SUCCEEDED
        again = await executor(make_command(broken.run_id, attempt=3))
        assert again == await executor(retried)
        assert await booking_rows(engine) == [("o-1", 1)]
