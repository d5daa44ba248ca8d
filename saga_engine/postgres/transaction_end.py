"""Which SQL ends the transaction: COMMIT, ROLLBACK and what else PostgreSQL calls them."""

import re

from saga_engine.postgres.script import statements_of

_SUSPECT = re.compile(r"(?i)\b(?:commit|end|abort|rollback|prepare)\b")
_END = re.compile(
    r"(?i)(?:commit|end|abort|prepare\s+transaction"
    r"|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b"
)


def ends_transaction(sql: str, *, is_script: bool) -> bool:
    """
    Whether SQL ends the transaction in which it is executed.

    Args:
        sql: as it is sent.
        is_script: whether it may have several statements; else the first one is all.
    """
    if not _SUSPECT.search(sql):
        return False
    statements = (each for each in statements_of(sql) if each)
    if is_script:
        return any(_END.match(each) for each in statements)
    return _END.match(next(statements, "")) is not None
