import pytest

from tests.cli.conftest import saga_engine

SOUND = """
from saga_engine import Saga

orders = Saga("orders", version=1, input=dict)

@orders.step(command="order.place", read_only=True)
def place(order: dict) -> dict:
    return order
"""
BROKEN = SOUND.replace(", read_only=True", "")


@pytest.fixture
def shop(tmp_path):
    """Modules in a directory that is not this checkout."""
    (tmp_path / "sound.py").write_text(SOUND)
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "syntax.py").write_text("def (")
    (tmp_path / "raising.py").write_text("1 / 0")
    (tmp_path / "empty.py").write_text("")
    return tmp_path


async def test_a_sound_module_is_found_from_the_working_directory(shop):
    ran = await saga_engine("check", "sound", cwd=shop)
    assert (ran.code, ran.out) == (0, "orders version 1: 1 steps, sound\n")
    told = (await saga_engine("check", "sound:orders", "--json", cwd=shop)).json
    assert (told["sound"], told["sagas"][0]["steps"]) == (True, ["place"])


async def test_a_broken_rule_exits_8_with_file_and_line(shop):
    ran = await saga_engine("check", "broken", cwd=shop)
    assert ran.code == 8
    assert f"{shop}/broken.py:" in ran.err
    told = await saga_engine("check", "broken", "--json", cwd=shop)
    assert (told.code, told.json["sound"]) == (8, False)
    assert told.json["problems"][0]["mend"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("nowhere", "There is no module 'nowhere'"),
        ("syntax", "syntax.py:1"),
        ("raising", "ZeroDivisionError"),
        ("empty", "declares no Saga"),
        ("sound:other", "has no Saga named 'other'"),
    ],
)
async def test_a_module_that_does_not_load_is_one_sentence(shop, module, words):
    ran = await saga_engine("check", module, cwd=shop)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert words in ran.err


@pytest.mark.parametrize(
    ("drawn", "words"), [("mermaid", "flowchart"), ("dot", "digraph"), ("ascii", "payment.charge")]
)
async def test_a_saga_is_drawn(drawn, words):
    ran = await saga_engine("graph", "examples.place_order.sagas:orders", "--format", drawn)
    assert ran.code == 0
    assert words in ran.out
    assert "payment.refund" in ran.out
