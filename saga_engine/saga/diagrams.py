"""
Pictures of a saga, as text: for `saga-engine graph`, for documents, for a terminal.

`mermaid`, `dot` and `ascii_art` draw a saga's steps in order with their kinds, commands and
compensations; `statuses` draws which status of a run may follow which. They only make text: nothing
is rendered, and whatever a name holds cannot break out of its label.
"""

from collections.abc import Iterator
from graphlib import TopologicalSorter

from saga_engine.saga.definition import Saga, Step
from saga_engine.vocabulary import StepKind

MERMAID_SHAPES = {
    StepKind.COMPENSATABLE: '["{}"]',
    StepKind.PIVOT: '{{{{"{}"}}}}',
    StepKind.RETRIABLE: '(["{}"])',
}
"""A box can be undone, a hexagon is the point of no return, a round end can only go forward."""

DOT_SHAPES = {
    StepKind.COMPENSATABLE: "box",
    StepKind.PIVOT: "hexagon",
    StepKind.RETRIABLE: "oval",
}


def mermaid(saga: Saga) -> str:
    """A flowchart in Mermaid; dashed arrows lead to compensations. Only for a sound saga."""
    lines = ["flowchart TD"]
    numbers = {name: number for number, name in enumerate(saga.steps)}
    for name, number in numbers.items():
        label = "<br/>".join(map(_mermaid_text, _words(saga, name)))
        lines.append(f"    s{number}{MERMAID_SHAPES[saga.kind(name)].format(label)}")
        lines += [f"    s{numbers[earlier]} --> s{number}" for earlier in saga.after[name]]
        undo = saga.steps[name].undo
        if undo is not None:
            lines.append(
                f'    s{number} -. undone by .-> u{number}["{_mermaid_text(undo.command)}"]'
            )
    return "\n".join(lines) + "\n"


def dot(saga: Saga) -> str:
    """A graph for Graphviz; dashed arrows lead to compensations. Only for a sound saga."""
    title = f"{saga.name}, version {saga.version}"
    lines = [f"digraph {_dot_text(saga.name)} {{", f"    label={_dot_text(title)};"]
    numbers = {name: number for number, name in enumerate(saga.steps)}
    for name, number in numbers.items():
        label = _dot_text("\n".join(_words(saga, name)))
        lines.append(f"    s{number} [shape={DOT_SHAPES[saga.kind(name)]}, label={label}];")
        lines += [f"    s{numbers[earlier]} -> s{number};" for earlier in saga.after[name]]
        undo = saga.steps[name].undo
        if undo is not None:
            lines.append(
                f"    u{number} [shape=box, style=dashed, label={_dot_text(undo.command)}];"
            )
            lines.append(f'    s{number} -> u{number} [style=dashed, label="undone by"];')
    return "\n".join([*lines, "}"]) + "\n"


def ascii_art(saga: Saga) -> str:
    """
    A table for a terminal; steps with the same number go side by side. Only for a sound saga.

    The line under the pivot is the point of no return.
    """
    rows = [("", "step", "command", "kind", "undone by", "after"), *_rows(saga)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{_ascii_text(saga.name)}, version {saga.version}", ""]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
        if row[3].startswith(StepKind.PIVOT):
            lines.append("-- no way back ".ljust(sum(widths) + 2 * (len(widths) - 1), "-"))
    return "\n".join(lines) + "\n"


def _words(saga: Saga, name: str) -> tuple[str, str, str]:
    step = saga.steps[name]
    return name, step.action.command, _kind(saga, step)


def _kind(saga: Saga, step: Step) -> str:
    kind = saga.kind(step.name)
    return f"{kind}, read-only" if step.read_only else str(kind)


def _rows(saga: Saga) -> Iterator[tuple[str, ...]]:
    for level, names in enumerate(_levels(saga), start=1):
        for name in names:
            undo = saga.steps[name].undo
            cells = (
                str(level),
                *_words(saga, name),
                "-" if undo is None else undo.command,
                ", ".join(saga.after[name]) or "-",
            )
            yield tuple(map(_ascii_text, cells))


def _levels(saga: Saga) -> Iterator[list[str]]:
    """The steps in rounds, each as early as it can be; in declaration order within one."""
    sorter = TopologicalSorter(saga.after)
    sorter.prepare()
    while sorter:
        ready = set(sorter.get_ready())
        yield [name for name in saga.steps if name in ready]
        sorter.done(*ready)


def _mermaid_text(text: str) -> str:
    """Mermaid's entity codes are numbers between # and ;."""
    return "".join(each if each.isalnum() or each in " ,.-_" else f"#{ord(each)};" for each in text)


def _dot_text(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{plain}"'


def _ascii_text(text: str) -> str:
    return "".join(
        each if each.isprintable() and each.isascii() else ascii(each)[1:-1] for each in text
    )
