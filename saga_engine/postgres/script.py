"""The statements of a script, without its comments and with blanks for what is quoted."""

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""--[^\n]* | /\* | ;
    | (?<![\w$])e'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | (?<![\w$])(?P<tag>\$(?:[a-z_]\w*)?\$).*?(?P=tag)""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def statements_of(sql: str) -> Iterator[str]:
    """
    Split SQL at its semicolons; a statement may be empty.

    Literals, quoted names and bodies of functions become blanks. A quote that does not end counts
    as code. Strings are read as with `standard_conforming_strings = on`.
    """
    code: list[str] = []
    start = 0
    while token := _TOKEN.search(sql, start):
        code.append(sql[start : token.start()])
        start = token.end()
        if token[0] == ";":
            yield "".join(code).strip()
            code = []
        elif token[0] == "/*":
            start = _end_of_comment(sql, start)
        code.append(" ")
    yield "".join([*code, sql[start:]]).strip()


def _end_of_comment(sql: str, start: int) -> int:
    """Where a comment ends, in which others may be."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)
