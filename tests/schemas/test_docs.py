"""Every block of docs/schemas.md runs, and prints what the page says."""

import pytest

from saga_engine.schemas.compatibility import Compatibility
from tests.kit.command_line import REPOSITORY
from tests.kit.document_blocks import blocks_of, run_script, save_files, scripts_of

PAGE = (REPOSITORY / "docs" / "schemas.md").read_text()
BLOCKS = blocks_of(PAGE)


@pytest.mark.long
@pytest.mark.timeout(300)  # a process for each command, on a busy machine
async def test_what_the_page_runs_prints_what_the_page_shows(tmp_path, database_url):
    save_files(BLOCKS, tmp_path)
    scripts = [*scripts_of(BLOCKS)]
    assert len(scripts) >= 5
    for script, expected in scripts:
        code, out, err = await run_script(tmp_path, script, database_url)
        assert (code, out.replace(f"{tmp_path}/", "")) == (0, expected), err


def test_every_block_of_python_is_a_file():
    assert all(block.name for block in BLOCKS if block.language == "python")
    assert len(BLOCKS) == PAGE.count("```") / 2


def test_the_page_names_every_mode():
    assert all(f"`{mode.value}`" in PAGE for mode in Compatibility)
