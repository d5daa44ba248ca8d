"""Every block of docs/consumers.md runs, and prints what the page says."""

import re
from contextlib import AsyncExitStack

import pytest

from saga_engine.settings import Settings
from tests.kit.command_line import REPOSITORY, read_log_until
from tests.kit.document_blocks import blocks_of, run_script, save_files, scripts_of, service
from tests.kit.event_database import connected
from tests.kit.programs import wait_until_true

PAGE = (REPOSITORY / "docs" / "consumers.md").read_text()
BLOCKS = blocks_of(PAGE)


@pytest.mark.long
async def test_what_the_page_runs_prints_what_the_page_shows(tmp_path, database_url, broker_url):
    save_files(BLOCKS, tmp_path)
    urls = {"database_url": database_url, "broker_url": broker_url}
    async with AsyncExitStack() as processes, connected(database_url) as connection:

        async def is_consumed() -> bool:
            return bool(await connection.fetchval("SELECT count(*) = 3 FROM invoice"))

        for script, expected in scripts_of(BLOCKS):
            if script == "python invoices.py":
                await wait_until_true(is_consumed)
            started = [each for each in script.splitlines() if each.endswith(" &")]
            for each in started:
                process = service(each, cwd=tmp_path, **urls)
                await read_log_until(await processes.enter_async_context(process), "process.ready")
            commands = [each for each in script.splitlines() if each not in started]
            code, out, err = await run_script(tmp_path, "\n".join(commands), database_url)
            assert (code, out) == (0, expected), err


def test_an_excerpt_is_in_its_file():
    for block in BLOCKS:
        if block.kind == "excerpt":
            assert block.body.strip() in (REPOSITORY / str(block.name)).read_text(), block.name


def test_every_setting_that_the_page_names_exists():
    named = re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE)
    assert {name.lower() for name in named} <= set(Settings.model_fields)
    assert all(block.name for block in BLOCKS if block.language == "python")
