"""Under load, with crashes of the server, a reader loses no event and reads streams in order."""

import pytest

from tests.events.event_stress import SHARED_STREAMS, Stress, StressResult
from tests.kit.event_database import connected

WRITERS = 32


def check(result: StressResult) -> None:
    assert result.lost == set()
    assert result.out_of_order == []
    assert len(result.read) == len(result.stored)
    assert result.positions == sorted(set(result.positions))
    streams = {stream for stream, _ in result.read}
    assert len(streams) == WRITERS + SHARED_STREAMS


@pytest.mark.parametrize(
    ("seconds", "kills"),
    [(5, 1), pytest.param(60, 6, marks=pytest.mark.long)],
)
@pytest.mark.timeout(300)
async def test_a_reader_loses_no_event_and_reads_streams_in_order(
    event_url: str, seconds: int, kills: int
):
    result = await Stress(event_url, seconds=seconds, writers=WRITERS).run(kills=kills)
    check(result)
    assert result.kills == kills


async def test_the_load_finds_a_reader_without_announcements(event_url: str):
    """Or the tests above would prove nothing."""
    async with connected(event_url) as connection:
        await connection.execute("DROP TRIGGER announce_positions ON saga_engine.stream_event")
    result = await Stress(event_url, seconds=2, writers=WRITERS).run(kills=0)
    assert result.lost
