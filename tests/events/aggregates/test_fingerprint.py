"""A snapshot is used only by the code that made it."""

import importlib
import sys
from textwrap import dedent

import pytest

MODULE = """
from pydantic import BaseModel
from saga_engine.events import Aggregate

class Order(BaseModel):
    total: int = 0

class Placed(BaseModel):
    total: int

orders = Aggregate("order", state=Order)

def rounded(total: int) -> int:
    return total

@orders.event("order-placed")
def placed(order: Order, event: Placed) -> Order:
    return Order(total=rounded(event.total))
"""


@pytest.fixture
def fingerprint_of(tmp_path, monkeypatch):
    """The fingerprint of the aggregate that a module declares, imported anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(source: str) -> str | None:
        (tmp_path / "fingerprinted.py").write_text(dedent(source))
        sys.modules.pop("fingerprinted", None)
        importlib.invalidate_caches()
        fingerprint: str | None = importlib.import_module("fingerprinted").orders.fingerprint
        return fingerprint

    yield load
    sys.modules.pop("fingerprinted", None)


def test_the_same_code_has_the_same_fingerprint(fingerprint_of):
    first = fingerprint_of(MODULE)
    assert first == fingerprint_of(MODULE)
    assert first is not None
    assert len(first) == 16


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return Order(total=rounded(event.total))", "return Order(total=event.total)"),
        ("    return total", "    return total // 2"),
        ("total: int = 0", "total: int = 1"),
        ("class Placed(BaseModel):", "class Placed(BaseModel, extra='forbid'):"),
    ],
)
def test_a_change_of_a_fold_of_what_it_calls_or_of_the_state_changes_it(fingerprint_of, old, new):
    assert fingerprint_of(MODULE) != fingerprint_of(MODULE.replace(old, new))


@pytest.mark.parametrize(
    "used",
    [
        ("class Order(BaseModel):", "class Order(Base):"),
        ("    total: int = 0", "    total: int = 0\n    lines: list[Base | None] = []"),
    ],
    ids=["base class", "class of a field"],
)
def test_a_change_of_a_class_of_another_module_that_the_state_uses_changes_it(
    fingerprint_of, tmp_path, monkeypatch, used
):
    base = "from pydantic import BaseModel\n\nclass Base(BaseModel):\n    pass\n"
    source = "from fingerprinted_base import Base\n" + MODULE.replace(*used)
    found = []
    for module in (base, base + "    def round(self) -> int:\n        return 1\n"):
        (tmp_path / "fingerprinted_base.py").write_text(module)
        monkeypatch.delitem(sys.modules, "fingerprinted_base", raising=False)
        found.append(fingerprint_of(source))
    assert None not in found
    assert found[0] != found[1]


def test_it_is_that_of_the_code_that_was_imported_even_if_the_file_is_replaced_later(
    fingerprint_of, tmp_path
):
    first = fingerprint_of(MODULE)
    orders = sys.modules["fingerprinted"].orders
    (tmp_path / "fingerprinted.py").write_text("# the next version")
    assert orders.fingerprint == first


def test_without_source_no_snapshots_are_used():
    namespace = {"__name__": "never_imported"}
    exec(MODULE, namespace)
    assert namespace["orders"].fingerprint is None  # type: ignore[attr-defined]
