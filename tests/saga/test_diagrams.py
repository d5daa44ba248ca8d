"""Diagrams, letter by letter; and that no name breaks out of its label."""

from itertools import pairwise

from saga_engine import Saga
from saga_engine.saga.diagrams import ascii_table, dot, mermaid
from tests.kit.decider_scenario import add_step, branching_saga


def journey() -> Saga:
    saga = Saga("journey", version=3, input=dict)
    add_step(saga, "look", compensated=False, read_only=True)
    add_step(saga, "book")
    add_step(saga, "pay", pivot=True, compensated=False)
    add_step(saga, "end", compensated=False)
    return saga


def test_mermaid_draws_a_sequence_with_its_pivot():
    assert mermaid(journey()) == (
        "flowchart TD\n"
        '    s0["look<br/>do.look<br/>compensatable, read-only"]\n'
        '    s1["book<br/>do.book<br/>compensatable"]\n'
        "    s0 --> s1\n"
        '    s1 -. compensated by .-> u1["undo.book"]\n'
        '    s2{{"pay<br/>do.pay<br/>pivot"}}\n'
        "    s1 --> s2\n"
        '    s3(["end<br/>do.end<br/>retriable"])\n'
        "    s2 --> s3\n"
    )


def test_mermaid_draws_branches():
    lines = mermaid(branching_saga()).splitlines()
    arrows = {line.strip() for line in lines if " --> " in line}
    assert arrows == {"s0 --> s1", "s0 --> s2", "s1 --> s3", "s2 --> s3"}


def test_dot_draws_a_sequence_with_its_pivot():
    assert dot(journey()) == (
        'digraph "journey" {\n'
        '    label="journey, version 3";\n'
        '    s0 [shape=box, label="look\\ndo.look\\ncompensatable, read-only"];\n'
        '    s1 [shape=box, label="book\\ndo.book\\ncompensatable"];\n'
        "    s0 -> s1;\n"
        '    u1 [shape=box, style=dashed, label="undo.book"];\n'
        '    s1 -> u1 [style=dashed, label="compensated by"];\n'
        '    s2 [shape=hexagon, label="pay\\ndo.pay\\npivot"];\n'
        "    s1 -> s2;\n"
        '    s3 [shape=oval, label="end\\ndo.end\\nretriable"];\n'
        "    s2 -> s3;\n"
        "}\n"
    )


def test_the_table_marks_the_point_of_no_return():
    assert ascii_table(journey()) == (
        "journey, version 3\n"
        "\n"
        "   step  command  kind                      compensated by  after\n"
        "1  look  do.look  compensatable, read-only  -               -\n"
        "2  book  do.book  compensatable             undo.book       look\n"
        "3  pay   do.pay   pivot                     -               book\n"
        "-- point of no return -------------------------------------------\n"
        "4  end   do.end   retriable                 -               pay\n"
    )


def test_the_table_gives_parallel_steps_the_same_number():
    assert ascii_table(branching_saga()) == (
        "fork, version 1\n"
        "\n"
        "   step   command   kind           compensated by  after\n"
        "1  root   do.root   compensatable  undo.root       -\n"
        "2  left   do.left   compensatable  undo.left       root\n"
        "2  right  do.right  compensatable  undo.right      root\n"
        "3  join   do.join   compensatable  undo.join       left, right\n"
    )


def test_a_pivot_that_is_read_only_is_marked_too():
    saga = Saga("look", version=1, input=dict)
    add_step(saga, "look", pivot=True, compensated=False, read_only=True)
    assert "-- point of no return -" in ascii_table(saga)


def test_a_name_cannot_break_out_of_its_label():
    saga = Saga('a"]\n; x -> y', version=1, input=dict)
    step = add_step(saga, "b", compensated=False)

    @step.compensation(command='"]\\\n--> end <script>#&\x1b[31mä')
    def undo(order: dict) -> dict:
        return {}

    last = mermaid(saga).splitlines()[-1]
    label = last.removeprefix('    s0 -. compensated by .-> u0["').removesuffix('"]')
    assert set(label).isdisjoint('"[]<>&\n\\\x1b')
    assert len(mermaid(saga).splitlines()) == 3
    drawn = dot(saga)
    assert drawn.startswith('digraph "a\\"]\\n; x -> y" {\n')
    assert 'label="\\"]\\\\\\n--> end <script>#&' in drawn
    plain = ascii_table(saga)
    assert plain.isascii()
    assert "\x1b" not in plain
    assert len(plain.splitlines()) == 4


def test_every_line_of_the_table_is_as_wide_as_its_rule():
    lines = ascii_table(journey()).splitlines()[2:]
    (rule,) = [line for line in lines if line.startswith("--")]
    assert all(len(line) <= len(rule) for line in lines)
    assert all(earlier != later for earlier, later in pairwise(lines))
