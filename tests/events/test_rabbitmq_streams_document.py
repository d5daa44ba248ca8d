"""Every block of docs/rabbitmq-streams.md runs, and prints what the page says."""

import re
from pathlib import Path

import pytest

from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.command_line import REPOSITORY, read_log_until
from tests.kit.document_blocks import (
    block_with,
    blocks_of,
    lines_of,
    output_of,
    run_script,
    save_files,
    service,
)
from tests.kit.feeds import wait_for_feed
from tests.kit.streams import stream_url

PAGE = (REPOSITORY / "docs" / "rabbitmq-streams.md").read_text()
BLOCKS = blocks_of(PAGE)
EARLIER_BLOCKS = blocks_of((REPOSITORY / "docs" / "events.md").read_text())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files of both pages."""
    save_files([*EARLIER_BLOCKS, *BLOCKS], tmp_path)
    return tmp_path


@pytest.mark.rabbitmq
async def test_the_consumer_of_the_page_reads_the_events_from_a_stream(
    directory, database_url, rabbitmq, rabbitmq_url
):
    texts = ("rabbitmq-plugins", " projector stream_feed", "python stream")
    plugin, start, consume = (block_with(BLOCKS, each) for each in texts)
    assert "enable rabbitmq_stream" in plugin.body
    export, *prepare, projector = start.body.splitlines()
    assert export.startswith("export SAGA_ENGINE_BROKER_URL=")
    settings = {
        "broker_url": rabbitmq_url,
        "broker_stream_url": stream_url(rabbitmq, rabbitmq_url),
    }
    code, _, err = await run_script(directory, "\n".join(prepare), database_url)
    assert code == 0, err
    async with service(projector, cwd=directory, database_url=database_url, **settings) as process:
        await read_log_until(process, "feed.acquired")
        async with Database(database_url, Settings(), EVENT_DATABASE) as database:
            await wait_for_feed(database, 1)
        expected = output_of(BLOCKS, consume)
        received = await lines_of("stream_billing.py", directory, settings, len(expected))
    assert received == expected


def test_every_block_of_python_is_a_file():
    assert all(each.kind == "file" for each in BLOCKS if each.language == "python")
    assert len(BLOCKS) == PAGE.count("```") / 2


def test_every_setting_that_the_page_names_exists():
    named = re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE)
    assert {name.lower() for name in named} <= set(Settings.model_fields)
