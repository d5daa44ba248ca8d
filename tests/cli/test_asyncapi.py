import json
import re

import pytest

from tests.kit.asyncapi_schema import assert_valid
from tests.kit.command_line import REPOSITORY, saga_engine

URL = "postgresql+asyncpg://nowhere/orders"  # the services need one; nothing connects
PAGE = (REPOSITORY / "docs" / "cli.md").read_text()


async def test_the_example_of_the_manual_prints_a_valid_document():
    [arguments] = re.findall(r"^saga-engine asyncapi (.*) > asyncapi.json$", PAGE, re.MULTILINE)
    printed = await saga_engine("asyncapi", *arguments.split())
    assert printed.exit_code == 0, printed.err
    document = json.loads(printed.out)
    assert_valid(document)
    kinds = {name.partition("/")[0].partition(".")[0] for name in document["channels"]}
    assert kinds == {"saga", "feed"}
    assert {"saga.commands/card.charge", "saga.replies", "feed.shop-orders"} <= {
        *document["channels"]
    }


async def test_a_participant_is_described_beside_its_saga():
    modules = ("examples.place_order.sagas", "examples.place_order.services")
    options = ("--title", "orders", "--version", "2.1.0")
    printed = await saga_engine("asyncapi", *modules, *options, database_url=URL)
    assert printed.exit_code == 0, printed.err
    document = json.loads(printed.out)
    assert_valid(document)
    assert document["info"] == {"title": "orders", "version": "2.1.0"}
    assert "saga.participant.payments" in document["channels"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "Name a module"),
        (("no_such_module",), "There is no module"),
        (("examples.place_order.messages",), "declares no Saga, Participant, Aggregate or Feed"),
    ],
)
async def test_what_cannot_be_described_exits_2(arguments, problem):
    printed = await saga_engine("asyncapi", *arguments)
    assert printed.exit_code == 2
    assert problem in printed.err
