"""
A saga as a diagram, in text: for `saga-engine graph`, for documents, for a terminal.

`mermaid`, `dot` and `ascii_table` draw a saga's steps in order with their kinds, commands and
compensations. They only make text and render nothing; a name cannot break out of its label.
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
"""A box has a compensation, a hexagon is the pivot, rounded ends can only go forward."""

DOT_SHAPES = {
    StepKind.COMPENSATABLE: "box",
    StepKind.PIVOT: "hexagon",
    StepKind.RETRIABLE: "oval",
}


def mermaid(saga: Saga) -> str:
    """A flowchart in Mermaid; dashed arrows lead to compensations. Only for a valid saga."""
    lines = ["flowchart TD"]
    numbers = {name: number for number, name in enumerate(saga.steps)}
    for name, number in numbers.items():
        label = "<br/>".join(map(_escape_mermaid, _label_parts(saga, name)))
        lines.append(f"    s{number}{MERMAID_SHAPES[saga.step_kind(name)].format(label)}")
        lines += [f"    s{numbers[earlier]} --> s{number}" for earlier in saga.predecessors[name]]
        compensation = saga.steps[name].compensation_spec
        if compensation is not None:
            label = _escape_mermaid(compensation.command)
            lines.append(f'    s{number} -. compensated by .-> u{number}["{label}"]')
    return "\n".join(lines) + "\n"


def dot(saga: Saga) -> str:
    """A graph for Graphviz; dashed arrows lead to compensations. Only for a valid saga."""
    title = f"{saga.name}, version {saga.version}"
    lines = [f"digraph {_quote_dot(saga.name)} {{", f"    label={_quote_dot(title)};"]
    numbers = {name: number for number, name in enumerate(saga.steps)}
    for name, number in numbers.items():
        label = _quote_dot("\n".join(_label_parts(saga, name)))
        lines.append(f"    s{number} [shape={DOT_SHAPES[saga.step_kind(name)]}, label={label}];")
        lines += [f"    s{numbers[earlier]} -> s{number};" for earlier in saga.predecessors[name]]
        compensation_spec = saga.steps[name].compensation_spec
        if compensation_spec is not None:
            lines.append(
                f"    u{number} [shape=box, style=dashed,"
                f" label={_quote_dot(compensation_spec.command)}];"
            )
            lines.append(f'    s{number} -> u{number} [style=dashed, label="compensated by"];')
    return "\n".join([*lines, "}"]) + "\n"


def ascii_table(saga: Saga) -> str:
    """
    A table for a terminal; steps with the same number go side by side. Only for a valid saga.

    The line under the pivot is the point of no return.
    """
    rows = [("", "step", "command", "kind", "compensated by", "after"), *_table_rows(saga)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{_escape_ascii(saga.name)}, version {saga.version}", ""]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
        if row[3].startswith(StepKind.PIVOT):
            lines.append("-- point of no return ".ljust(sum(widths) + 2 * (len(widths) - 1), "-"))
    return "\n".join(lines) + "\n"


def _label_parts(saga: Saga, name: str) -> tuple[str, str, str]:
    step = saga.steps[name]
    return name, step.action_spec.command, _kind_label(saga, step)


def _kind_label(saga: Saga, step: Step) -> str:
    kind = saga.step_kind(step.name)
    return f"{kind}, read-only" if step.read_only else str(kind)


def _table_rows(saga: Saga) -> Iterator[tuple[str, ...]]:
    for level, names in enumerate(_topological_levels(saga), start=1):
        for name in names:
            compensation_spec = saga.steps[name].compensation_spec
            cells = (
                str(level),
                *_label_parts(saga, name),
                "-" if compensation_spec is None else compensation_spec.command,
                ", ".join(saga.predecessors[name]) or "-",
            )
            yield tuple(map(_escape_ascii, cells))


def _topological_levels(saga: Saga) -> Iterator[list[str]]:
    """The steps by level, each as early as possible; in declaration order within a level."""
    sorter = TopologicalSorter(saga.predecessors)
    sorter.prepare()
    while sorter:
        ready = set(sorter.get_ready())
        yield [name for name in saga.steps if name in ready]
        sorter.done(*ready)


def _escape_mermaid(text: str) -> str:
    """Mermaid's entity codes are numbers between # and ;."""
    return "".join(each if each.isalnum() or each in " ,.-_" else f"#{ord(each)};" for each in text)


def _quote_dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _escape_ascii(text: str) -> str:
    return "".join(
        each if each.isprintable() and each.isascii() else ascii(each)[1:-1] for each in text
    )
