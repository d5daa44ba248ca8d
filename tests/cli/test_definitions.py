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
    assert (ran.exit_code, ran.out) == (0, "orders version 1: 1 steps, sound\n")
    told = (await saga_engine("check", "sound:orders", "--json", cwd=shop)).json
    assert (told["sound"], told["sagas"][0]["steps"]) == (True, ["place"])


async def test_a_broken_rule_exits_8_with_file_and_line(shop):
    ran = await saga_engine("check", "broken", cwd=shop)
    assert ran.exit_code == 8
    assert f"{shop}/broken.py:" in ran.err
    told = await saga_engine("check", "broken", "--json", cwd=shop)
    assert (told.exit_code, told.json["sound"]) == (8, False)
    assert told.json["problems"][0]["fix"]


SEVERAL = """
from saga_engine import Saga

orders = Saga("orders", version=1, input=dict)

@orders.step(command="order.place")
def place(order) -> dict:
    return order

@orders.step(command="order.ship")
def ship(order: dict) -> dict:
    return order

other = Saga("orders", version=1, input=dict)

@other.step(command='order.place')
def place_again(order: dict) -> dict:
    return order

other.step
"""


async def test_every_mistake_of_a_module_is_reported_at_once(shop):
    (shop / "several.py").write_text(SEVERAL)
    ran = await saga_engine("check", "several", cwd=shop)
    assert ran.exit_code == 8
    assert [line.partition(": ")[0] for line in ran.err.splitlines()] == [
        f"{shop}/several.py:{number}" for number in (6, 6, 10, 16, 14)
    ]
    told = await saga_engine("check", "several", "--json", cwd=shop)
    assert len(told.json["problems"]) == 5


async def test_mistakes_before_one_that_ends_the_import_are_reported_with_it(shop):
    bare = SEVERAL.replace("(command='order.place')\ndef place_again", "\ndef place_again")
    (shop / "bare.py").write_text(bare)
    ran = await saga_engine("check", "bare", cwd=shop)
    assert [line.partition(": ")[0] for line in ran.err.splitlines()] == [
        f"{shop}/bare.py:{number}" for number in (6, 16)
    ]


@pytest.mark.parametrize(
    ("given", "module"),
    [("shop/sagas.py", "shop.sagas"), ("./sound.py:orders", "sound:orders"), ("a/b", "a.b")],
)
async def test_a_file_is_refused_with_the_module_it_is(shop, given, module):
    ran = await saga_engine("check", given, cwd=shop)
    assert (ran.exit_code, len(ran.err.splitlines())) == (2, 1)
    assert ran.err.endswith(f"give {module}.\n")


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
    assert (ran.exit_code, len(ran.err.splitlines())) == (2, 1)
    assert words in ran.err


@pytest.mark.parametrize(
    ("drawn", "words"), [("mermaid", "flowchart"), ("dot", "digraph"), ("ascii", "payment.charge")]
)
async def test_a_saga_is_drawn(drawn, words):
    ran = await saga_engine("graph", "examples.place_order.sagas:place_order", "--format", drawn)
    assert ran.exit_code == 0
    assert words in ran.out
    assert "payment.refund" in ran.out


TYPED = """
from pydantic import BaseModel, Field
from saga_engine import Saga

class Order(BaseModel):
    order_id: str = Field(alias="orderId")

class Placed(BaseModel):
    number: int

orders = Saga("orders", version=1, input=Order)

@orders.step(command="order.place", reply=Placed)
def place(order: Order) -> Order:
    return order

@place.compensation(command="order.cancel")
def cancel(order: Order, place: Placed | None) -> dict:
    return {}
"""


async def test_the_schemas_of_what_travels_are_printed_with_the_names_on_the_wire(shop):
    (shop / "typed.py").write_text(TYPED)
    [saga] = (await saga_engine("schema", "typed", cwd=shop)).json["sagas"]
    [step] = saga["steps"]
    assert saga["input"]["required"] == ["orderId"]
    assert (step["action"]["command"], step["action"]["payload"]["required"]) == (
        "order.place",
        ["orderId"],
    )
    assert step["action"]["reply"]["properties"]["number"]["type"] == "integer"
    assert (step["compensation"]["command"], step["compensation"]["reply"]) == ("order.cancel", {})
