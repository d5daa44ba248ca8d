"""
Lay out a table in the width of a terminal: a pure function from cells to lines.

A truncated id is useless, so columns of ids are never wrapped. Other columns are wrapped if the row
does not fit; columns that still do not fit go to further, indented lines of the same row. Widths
are in terminal columns: a wide character takes two.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest

COLUMN_GAP = 2
"""Spaces between two columns."""
INDENT = 2
"""Spaces before the second and later lines of a row."""
FOLD_WIDTH = 24
"""Width to which a column is wrapped before it goes to another line."""


def layout_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    unfolded_columns: Collection[str],
) -> Iterator[str]:
    """
    Lay out a table, its header first.

    Args:
        width: of one line; only a value in one of *unfolded_columns*, or in the first column, may
            be wider.
        unfolded_columns: the columns that are never wrapped.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import, and only needed on a terminal

    natural_widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    minimum_widths = [
        natural_width
        if index == 0 or name in unfolded_columns
        else min(natural_width, FOLD_WIDTH, max(1, width - INDENT))
        for index, (name, natural_width) in enumerate(zip(columns, natural_widths, strict=True))
    ]
    if sum(natural_widths) + COLUMN_GAP * (len(natural_widths) - 1) <= width:
        minimum_widths = natural_widths
    row_lines = [
        (line_width, _distribute_spare_width(indexes, natural_widths, minimum_widths, line_width))
        for line_width, indexes in _split_columns(minimum_widths, width)
    ]
    for row in (columns, *rows):
        for index, (_, widths) in enumerate(row_lines):
            yield from _render_row(row, widths, " " * INDENT if index else "")


def wrap_text(text: str, width: int) -> list[str]:
    """Wrap a text at spaces into lines of at most *width*; break words that are longer."""
    from rich.cells import cell_len, chop_cells  # noqa: PLC0415 - the same

    lines, current = [], ""
    for word in text.split(" "):
        joined = f"{current} {word}" if current else word
        if cell_len(joined) <= width:
            current = joined
            continue
        if current:
            lines.append(current)
        *full_lines, current = chop_cells(word, width) or [""]
        lines += full_lines
    return [*lines, current]


def _split_columns(minimum_widths: Sequence[int], width: int) -> list[tuple[int, list[int]]]:
    """Assign the columns to the lines of a row; return the width and the columns of each line."""
    row_lines: list[tuple[int, list[int]]] = [(width, [])]
    used_width = 0
    for index, minimum_width in enumerate(minimum_widths):
        line_width, indexes = row_lines[-1]
        if indexes and used_width + COLUMN_GAP + minimum_width > line_width:
            line_width, indexes = width - INDENT, []
            row_lines.append((line_width, indexes))
            used_width = 0
        used_width += minimum_width + (COLUMN_GAP if indexes else 0)
        indexes.append(index)
    return row_lines


def _distribute_spare_width(
    indexes: Sequence[int],
    natural_widths: Sequence[int],
    minimum_widths: Sequence[int],
    line_width: int,
) -> dict[int, int]:
    """Give the unused width of a line to its columns, the last first."""
    widths = {index: minimum_widths[index] for index in indexes}
    spare = line_width - sum(widths.values()) - COLUMN_GAP * (len(indexes) - 1)
    for index in reversed(indexes):
        extra = max(0, min(spare, natural_widths[index] - widths[index]))
        widths[index] += extra
        spare -= extra
    return widths


def _render_row(row: Sequence[str], widths: dict[int, int], indent: str) -> Iterator[str]:
    from rich.cells import cell_len  # noqa: PLC0415 - the same

    columns = [wrap_text(row[index], column_width) for index, column_width in widths.items()]
    for cells in zip_longest(*columns, fillvalue=""):
        padded = [
            each + " " * (column_width - cell_len(each))
            for each, column_width in zip(cells, widths.values(), strict=True)
        ]
        yield (indent + (" " * COLUMN_GAP).join(padded)).rstrip()
