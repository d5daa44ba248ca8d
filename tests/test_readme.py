"""Every block of Python in README.md is a file of the examples, or an excerpt of one."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"<!-- (example|excerpt): (\S+) -->\n```python\n(.*?)```", README, re.DOTALL)
FIRST_SCREEN_LINES = 25


def without_blank_lines(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if line.strip())


def test_every_block_names_its_file():
    assert README.count("```python") == len(BLOCKS) > 0


def test_a_block_is_its_file_or_an_excerpt_of_it():
    for kind, path, block in BLOCKS:
        source = (ROOT / path).read_text()
        if kind == "example":
            assert source.strip() == block.strip(), path
        else:
            assert without_blank_lines(block) in without_blank_lines(source), path


def test_the_first_block_is_within_the_first_screen():
    assert README[: README.index("```python")].count("\n") < FIRST_SCREEN_LINES
    assert "make demo" in "\n".join(README.splitlines()[:FIRST_SCREEN_LINES])
