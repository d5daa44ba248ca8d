"""The files and functions that docs/internals.md and CONTRIBUTING.md name exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INTERNALS = (ROOT / "docs" / "internals.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
FILES = sorted(
    set(re.findall(r"`([\w./]+/[\w./]*\.(?:py|md|sql|toml))`", INTERNALS + CONTRIBUTING))
)
HOPS = re.findall(r"^\| \d+ \| `([\w./]+)` \| `([\w.]+)` \|", INTERNALS, re.MULTILINE)


def test_the_path_of_a_message_is_found():
    assert len(HOPS) > 40


@pytest.mark.parametrize("file", FILES)
def test_a_named_file_exists(file):
    assert (ROOT / file).is_file()


@pytest.mark.parametrize(("file", "name"), HOPS)
def test_a_named_function_exists(file, name):
    scope: ast.AST = ast.parse((ROOT / file).read_text())
    for part in name.split("."):
        defined = {each.name: each for each in ast.iter_child_nodes(scope) if hasattr(each, "name")}
        assert part in defined, f"{file} has no {name}"
        scope = defined[part]
