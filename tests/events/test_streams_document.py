"""Every block of docs/streams.md runs, and prints what the page says."""

import re
from pathlib import Path

import pytest

from saga_engine.settings import Settings
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
from tests.kit.servers import running_kafka

PAGE = (REPOSITORY / "docs" / "streams.md").read_text()
BLOCKS = blocks_of(PAGE)
EARLIER_BLOCKS = blocks_of((REPOSITORY / "docs" / "events.md").read_text())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files of both pages."""
    save_files([*EARLIER_BLOCKS, *BLOCKS], tmp_path)
    return tmp_path


async def test_the_consumer_of_the_page_reads_the_events_from_kafka(
    directory, database_url, kafka_is_installed
):
    texts = ("saga-engine check", " projector ", "python kafka")
    check, start, consume = (block_with(BLOCKS, each) for each in texts)
    exports = [each for each in check.body.splitlines() if each.startswith("export ")]
    *prepare, projector = start.body.splitlines()
    async with running_kafka() as server:
        settings = {"kafka_bootstrap_servers": server.servers, "kafka_replication": "1"}
        names = {each.partition("=")[0] for each in exports}
        assert names == {f"export SAGA_ENGINE_{name.upper()}" for name in settings}
        code, out, err = await run_script(
            directory, check.body.splitlines()[-1], database_url, **settings
        )
        assert (code, out) == (0, output_of(BLOCKS, check)), err
        code, _, err = await run_script(directory, "\n".join(prepare), database_url, **settings)
        assert code == 0, err
        command = service(projector, cwd=directory, database_url=database_url, **settings)
        async with command as process:
            await read_log_until(process, "feed.acquired")
            expected = output_of(BLOCKS, consume)
            received = await lines_of("kafka_billing.py", directory, settings, len(expected))
    assert received == expected


def test_every_block_of_python_is_a_file():
    assert all(each.kind == "file" for each in BLOCKS if each.language == "python")
    assert len(BLOCKS) == PAGE.count("```") / 2


def test_every_setting_that_the_page_names_exists():
    named = re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE)
    assert {name.lower() for name in named} <= set(Settings.model_fields)
