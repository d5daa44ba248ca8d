"""Records of five fields or more are made by keyword, and no record is made from a spread tuple."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.kit.every_file import every_file

ROOT = Path(__file__).parent.parent
FOLDERS = ("saga_engine", "simulation", "examples", "benchmarks")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
WIDE = 5
"""Fields from which on a position no longer says what a value is."""


def wide_positional_dataclasses(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            decorators = [ast.unparse(each) for each in node.decorator_list]
            fields = [
                each
                for each in node.body
                if isinstance(each, ast.AnnAssign)
                and "ClassVar" not in ast.unparse(each.annotation)
            ]
            for each in decorators:
                if (
                    each.startswith("dataclass")
                    and len(fields) >= WIDE
                    and "kw_only=True" not in each
                ):
                    yield node.name


def records_from_tuples(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1][:1].isupper():
            for each in node.args:
                if isinstance(each, ast.Starred) and isinstance(each.value, ast.Tuple):
                    yield f"{ast.unparse(node.func)} in line {node.lineno}"


@every_file(MODULES)
def test_a_wide_record_is_made_by_keyword(module):
    source = module.read_text()
    assert list(wide_positional_dataclasses(source)) == []
    assert list(records_from_tuples(source)) == []


def test_a_wide_positional_record_is_found():
    fields = "".join(f"    f{n}: int\n" for n in range(WIDE))
    assert [*wide_positional_dataclasses(f"@dataclass(frozen=True)\nclass A:\n{fields}")] == ["A"]
    assert [*wide_positional_dataclasses(f"@dataclass(kw_only=True)\nclass A:\n{fields}")] == []
    assert [*records_from_tuples("Answer(*(a, b), *(c, d))")]
