"""Which SQL ends the transaction: COMMIT, ROLLBACK and what else PostgreSQL calls them."""

import re
from collections.abc import Iterator

_SUSPECT = re.compile(r"(?i)\b(?:commit|end|abort|rollback|prepare)\b")
_END = re.compile(
    r"(?i)(?:commit|end|abort|prepare\s+transaction"
    r"|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b"
)
_TOKEN = re.compile(
    r"""--[^\n]* | /\* | ;
    | (?<![\w$])e'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | (?<![\w$])(?P<tag>\$(?:[a-z_]\w*)?\$).*?(?P=tag)""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def ends_transaction(sql: str, *, is_script: bool) -> bool:
    """
    Whether SQL ends the transaction in which it is executed.

    Args:
        sql: as it is sent.
        is_script: whether it may have several statements; else the first one is all.
    """
    if not _SUSPECT.search(sql):
        return False
    statements = (each for each in _statements(sql) if each)
    if is_script:
        return any(_END.match(each) for each in statements)
    return _END.match(next(statements, "")) is not None


def _statements(sql: str) -> Iterator[str]:
    """The statements without comments, and with blanks for what is quoted."""
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
