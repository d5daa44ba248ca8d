"""Who acts on a projection or a feed, and how `show` prints what operators did."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.operator import operator_or_login_name
from saga_engine.cli.output import print_line, print_table
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import RecordedAction

Reason = Annotated[str, Parameter(help="Why; `show` prints it.")]

ACTION_COLUMNS = ("action", "version", "position", "at", "operator", "reason")
ACTION_LIMIT = 20
"""Actions that `show` prints, the last ones."""


def acting_operator(operator: str | None, reason: str) -> operator_audit.Operator:
    """Return who acts and why, from the options of a command."""
    return operator_audit.Operator(operator_or_login_name(operator), reason)


def print_actions(actions: Sequence[RecordedAction]) -> None:
    """Print a table of actions after what was printed before; nothing if there are none."""
    if actions:
        print_line("")
        print_table(ACTION_COLUMNS, [astuple(each) for each in actions], empty="")
