"""
How a table is laid out in the width of a terminal: pure, from cells to lines.

An id that is cut is of no use, so a column of ids is never folded. Other columns are folded when
the row does not fit; columns that still do not fit go to a second line of the same row, and to
further ones, each indented. Widths are those of a terminal's cells: a wide character takes two.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest

GAP = 2
"""Cells between two columns."""
INDENT = 2
"""Cells before the second and later lines of a row."""
FOLDED = 24
"""Cells that a column is folded to before it goes to another line."""


def lay_out(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    whole: Collection[str],
) -> Iterator[str]:
    """
    Lay out a table, its header first.

    Args:
        width: cells of one line; only a value of a column in *whole*, or of the first column, may
            be wider.
        whole: the columns that are never folded.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import, and needed on terminals only

    natural = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    least = [
        wide if place == 0 or name in whole else min(wide, FOLDED, max(1, width - INDENT))
        for place, (name, wide) in enumerate(zip(columns, natural, strict=True))
    ]
    if sum(natural) + GAP * (len(natural) - 1) <= width:
        least = natural
    groups = [
        (room, _widened(places, natural, least, room)) for room, places in _grouped(least, width)
    ]
    for row in (columns, *rows):
        for place, (_, widths) in enumerate(groups):
            yield from _lines(row, widths, " " * INDENT if place else "")


def folded(text: str, width: int) -> list[str]:
    """Break a text at spaces into lines of at most *width* cells, and a longer word in it."""
    from rich.cells import cell_len, chop_cells  # noqa: PLC0415 - the same

    lines, current = [], ""
    for word in text.split(" "):
        joined = f"{current} {word}" if current else word
        if cell_len(joined) <= width:
            current = joined
            continue
        if current:
            lines.append(current)
        *full, current = chop_cells(word, width) or [""]
        lines += full
    return [*lines, current]


def _grouped(least: Sequence[int], width: int) -> list[tuple[int, list[int]]]:
    """Which columns stand on which line of a row, and how many cells that line has."""
    groups: list[tuple[int, list[int]]] = [(width, [])]
    used = 0
    for place, need in enumerate(least):
        room, places = groups[-1]
        if places and used + GAP + need > room:
            room, places = width - INDENT, []
            groups.append((room, places))
            used = 0
        used += need + (GAP if places else 0)
        places.append(place)
    return groups


def _widened(
    places: Sequence[int], natural: Sequence[int], least: Sequence[int], room: int
) -> dict[int, int]:
    """Give what is left of a line to its columns, the last first."""
    widths = {place: least[place] for place in places}
    spare = room - sum(widths.values()) - GAP * (len(places) - 1)
    for place in reversed(places):
        more = max(0, min(spare, natural[place] - widths[place]))
        widths[place] += more
        spare -= more
    return widths


def _lines(row: Sequence[str], widths: dict[int, int], indent: str) -> Iterator[str]:
    from rich.cells import cell_len  # noqa: PLC0415 - the same

    columns = [folded(row[place], wide) for place, wide in widths.items()]
    for cells in zip_longest(*columns, fillvalue=""):
        padded = [
            each + " " * (wide - cell_len(each))
            for each, wide in zip(cells, widths.values(), strict=True)
        ]
        yield (indent + (" " * GAP).join(padded)).rstrip()
