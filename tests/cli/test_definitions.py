import pytest

from tests.kit.command_line import saga_engine

VALID = """
from saga_engine import Saga

orders = Saga("orders", version=1, input=dict)

@orders.step(command="order.place", read_only=True)
def place(order: dict) -> dict:
    return order
"""
BROKEN = VALID.replace(", read_only=True", "")


@pytest.fixture
def shop(tmp_path):
    """A directory with modules, outside this checkout."""
    (tmp_path / "valid.py").write_text(VALID)
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "syntax.py").write_text("def (")
    (tmp_path / "raising.py").write_text("1 / 0")
    (tmp_path / "empty.py").write_text("")
    return tmp_path


async def test_a_valid_module_is_found_from_the_working_directory(shop):
    ran = await saga_engine("check", "valid", cwd=shop)
    assert (ran.exit_code, ran.out) == (0, "orders version 1: 1 step, valid\n")
    checked = (await saga_engine("check", "valid:orders", "--json", cwd=shop)).json
    assert (checked["valid"], checked["sagas"][0]["steps"]) == (True, ["place"])


async def test_a_broken_rule_exits_8_with_file_and_line(shop):
    ran = await saga_engine("check", "broken", cwd=shop)
    assert ran.exit_code == 8
    assert f"{shop}/broken.py:" in ran.err
    checked = await saga_engine("check", "broken", "--json", cwd=shop)
    assert (checked.exit_code, checked.json["valid"]) == (8, False)
    assert checked.json["problems"][0]["fix"]


AGGREGATE = """
from pydantic import BaseModel
from saga_engine.events import Aggregate

class Order(BaseModel):
    total: int = 0

class Placed(BaseModel):
    total: int

class Place(BaseModel):
    total: int

orders = Aggregate("order", state=Order)

@orders.event("order-placed")
def placed(order: Order, event: Placed) -> Order:
    return Order(total=event.total)

@orders.command
def place(order: Order, command: Place) -> Placed:
    return Placed(total=command.total)
"""


async def test_a_module_may_declare_aggregates_without_sagas(shop):
    (shop / "orders.py").write_text(AGGREGATE)
    ran = await saga_engine("check", "orders", cwd=shop)
    assert (ran.exit_code, ran.out) == (0, "order: 1 event, 1 command, valid\n")
    [aggregate] = (await saga_engine("check", "orders", "--json", cwd=shop)).json["aggregates"]
    assert aggregate["location"].startswith(f"{shop}/orders.py:")
    assert (aggregate["events"], aggregate["commands"]) == ({"order-placed": 1}, ["Place"])


PROJECTION = """
from sqlalchemy import Column, Integer, MetaData, Table, Text
from saga_engine.events import Change, Projection, Recorded, upsert

totals = Table(
    "totals", MetaData(), Column("id", Text, primary_key=True), Column("total", Integer)
)
by_order = Projection("totals", version=1, tables=[totals])

@by_order.on(Placed)
def projected(event: Placed, recorded: Recorded) -> Change:
    return upsert(totals, key={"id": recorded.stream}, add={"total": event.total})
"""


async def test_feeds_are_checked(shop):
    declared = 'from saga_engine.events import Feed\nfeed = Feed("orders", streams=["*"])\n'
    (shop / "feeds.py").write_text(declared)
    ran = await saga_engine("check", "feeds", cwd=shop)
    assert ran.exit_code == 8
    assert "feeds.py:2: Feed 'orders' publishes nowhere" in ran.err
    (shop / "feeds.py").write_text(f"{declared}feed.to_exchange()\n")
    ran = await saga_engine("check", "feeds", cwd=shop)
    assert ran.out == "orders: feed, valid\n"
    [feed] = (await saga_engine("check", "feeds", "--json", cwd=shop)).json["feeds"]
    assert feed["location"].endswith("feeds.py:2")


async def test_projections_are_checked_with_the_aggregates_of_their_events(shop):
    (shop / "orders.py").write_text(AGGREGATE + PROJECTION)
    ran = await saga_engine("check", "orders", cwd=shop)
    assert ran.exit_code == 0, ran.err
    assert ran.out.splitlines()[1] == "totals version 1: 1 event, 1 table, valid"
    [projection] = (await saga_engine("check", "orders", "--json", cwd=shop)).json["projections"]
    assert (projection["events"], projection["tables"]) == (["order-placed"], ["totals"])
    wrong = PROJECTION.replace("version=1", "version=0")
    # Another module: a file of the same second and size would be loaded from the bytecode cache.
    (shop / "wrong.py").write_text(AGGREGATE + wrong)
    ran = await saga_engine("check", "wrong", cwd=shop)
    assert (ran.exit_code, len(ran.err.splitlines())) == (8, 1)
    assert f"{shop}/wrong.py:" in ran.err


async def test_mistakes_of_aggregates_and_sagas_are_reported_together(shop):
    mistakes = {
        '"order-placed")': '"order-placed", version=2)',
        "command: Place) -> Placed": "command: Place) -> Order",
    }
    source = AGGREGATE
    for correct, mistake in mistakes.items():
        source = source.replace(correct, mistake)
    (shop / "wrong.py").write_text(BROKEN.replace("orders", "sagas") + source)
    ran = await saga_engine("check", "wrong", cwd=shop)
    assert ran.exit_code == 8
    assert "Step 'place' cannot be undone" in ran.err
    assert "Event 'order-placed' has version 2, and nothing reads version 1." in ran.err
    assert "place returns Order, which is not an event of 'order'." in ran.err
    assert len(ran.err.splitlines()) == 3


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


async def test_every_problem_of_a_module_is_reported_at_once(shop):
    (shop / "several.py").write_text(SEVERAL)
    ran = await saga_engine("check", "several", cwd=shop)
    assert ran.exit_code == 8
    assert [line.partition(": ")[0] for line in ran.err.splitlines()] == [
        f"{shop}/several.py:{number}" for number in (6, 6, 10, 16, 14)
    ]
    checked = await saga_engine("check", "several", "--json", cwd=shop)
    assert len(checked.json["problems"]) == 5


async def test_problems_before_a_failed_import_are_reported_with_it(shop):
    bare = SEVERAL.replace("(command='order.place')\ndef place_again", "\ndef place_again")
    (shop / "bare.py").write_text(bare)
    ran = await saga_engine("check", "bare", cwd=shop)
    assert [line.partition(": ")[0] for line in ran.err.splitlines()] == [
        f"{shop}/bare.py:{number}" for number in (6, 16)
    ]


@pytest.mark.parametrize(
    ("given", "module"),
    [("shop/sagas.py", "shop.sagas"), ("./valid.py:orders", "valid:orders"), ("a/b", "a.b")],
)
async def test_a_file_name_is_refused_with_the_module_name(shop, given, module):
    ran = await saga_engine("check", given, cwd=shop)
    assert (ran.exit_code, len(ran.err.splitlines())) == (2, 1)
    assert ran.err.endswith(f"give {module}.\n")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("nowhere", "There is no module 'nowhere'"),
        ("syntax", "syntax.py:1"),
        ("raising", "ZeroDivisionError"),
        ("empty", "declares no Saga, Aggregate, Projection, Feed or Consumer."),
        ("valid:other", "has no Saga, Aggregate, Projection, Feed or Consumer named 'other'"),
    ],
)
async def test_a_module_that_cannot_be_loaded_is_one_sentence(shop, module, words):
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


async def test_schemas_are_printed_with_the_names_on_the_wire(shop):
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


async def test_schemas_of_events_are_printed():
    document = (await saga_engine("schema", "examples.shop.orders")).json
    assert [(each["name"], each["version"]) for each in document["events"]] == [
        ("order-created", 2),
        ("order-confirmed", 1),
        ("order-cancelled", 1),
    ]
    created = document["events"][0]
    assert (created["aggregate"], created["data"]["properties"]["total"]["format"]) == (
        "order",
        "decimal",
    )
