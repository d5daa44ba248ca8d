"""The state diagrams are drawn from the tables, and the documents show them."""

import pytest

from saga_engine.decider.diagrams import run_diagram, step_diagram
from saga_engine.decider.transitions import RUN_TRANSITIONS, STEP_TRANSITIONS
from saga_engine.vocabulary import Direction
from tests.tools.diagrams import DOCUMENTS, with_diagrams


def edges(diagram):
    lines = [line.strip() for line in diagram.splitlines()[1:]]
    return {tuple(line.split(" --> ")) for line in lines if "[*]" not in line}


def test_the_statuses_of_a_run_are_drawn():
    lines = [line.strip() for line in run_diagram().splitlines()]
    assert lines == [
        "stateDiagram-v2",
        "[*] --> running",
        "running --> compensating",
        "running --> completed",
        "running --> abandoned",
        "compensating --> compensated",
        "compensating --> abandoned",
        "completed --> [*]",
        "compensated --> compensating",
        "compensated --> [*]",
        "abandoned --> [*]",
    ]
    assert edges(run_diagram()) == {(a, b) for a, after in RUN_TRANSITIONS.items() for b in after}


@pytest.mark.parametrize("direction", Direction)
def test_the_statuses_of_a_step_are_drawn(direction):
    diagram, table = step_diagram(direction), STEP_TRANSITIONS[direction]
    assert edges(diagram) == {(a, b) for a, after in table.items() for b in after}
    assert diagram.splitlines()[1] == "    [*] --> pending"
    assert "    skipped --> [*]" in diagram.splitlines()


def test_a_failed_action_may_stay_failed_and_a_failed_compensation_is_blocked():
    assert "    failed --> [*]" in step_diagram(Direction.ACTION).splitlines()
    assert "    failed --> [*]" not in step_diagram(Direction.COMPENSATION).splitlines()
    assert "    failed --> blocked" in step_diagram(Direction.COMPENSATION).splitlines()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_show_the_diagrams(document):
    text = document.read_text()
    assert "<!-- run-diagram -->" in text
    assert text == with_diagrams(text), "run `make diagrams`"
