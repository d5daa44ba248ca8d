"""What `resolve` prints for many incidents: preview, confirmation, progress and outcomes."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from saga_engine.cli.bulk_resolve import (
    BATCH_SIZE,
    IncidentSelection,
    ResolutionOutcome,
    ResolutionRequest,
    ResolutionResult,
)
from saga_engine.cli.exit_status import EXIT_PARTIAL_FAILURE
from saga_engine.cli.incidents import format_incident_id
from saga_engine.cli.output import print_json, print_line, print_stderr, print_table
from saga_engine.cli.paging import command_line
from saga_engine.errors import ConfigurationError, TimedOut
from saga_engine.store.incidents import StoredIncident


def print_preview(
    selection: IncidentSelection, request: ResolutionRequest, *, as_json: bool
) -> None:
    """Print which incidents the command would resolve."""
    groups = count_by_group(selection.incidents)
    if as_json:
        groups_json = [
            {"cause": cause, "step": step, "saga": saga, "count": number}
            for cause, step, saga, number in groups
        ]
        number = {"incidents": len(selection.incidents), **_total_json(selection)}
        print_json({"action": request.action, **number, "groups": groups_json})
        return
    print_table(("cause", "step", "saga", "incidents"), groups, empty="No open incident matches.")
    if selection.incidents:
        print_stderr(f"{selection.description}. Nothing was changed.")


def confirm_resolution(
    selection: IncidentSelection, request: ResolutionRequest, *, yes: bool
) -> bool:
    """
    Print the numbers of incidents and ask whether to go on.

    Raises:
        ConfigurationError: the answer is not given by --yes, and stdin is not a terminal.
    """
    for cause, step, saga, count in count_by_group(selection.incidents):
        print_stderr(f"{count} of saga {saga}, step {step}: {cause}")
    if yes or not selection.incidents:
        return True
    question = f"{request.action.capitalize()} {selection.description}?"
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} Add --yes to do it, or --dry-run to only list them.")
    print_stderr(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def print_progress(decided_count: int, total: int) -> None:
    """Print how many incidents are decided, if there is more than one batch."""
    if total > BATCH_SIZE or decided_count < total:
        print_stderr(f"{decided_count} of {total} decided")


def print_next_command(selection: IncidentSelection, command: Sequence[str]) -> None:
    """Print the command for the next incidents, if the limit left some."""
    if selection.has_more:
        print_stderr(
            f"These are the oldest {selection.description} (--limit). For the next ones:"
            f" {command_line(*command)}"
        )


def print_outcomes(
    outcomes: Sequence[ResolutionOutcome],
    request: ResolutionRequest,
    selection: IncidentSelection,
    *,
    as_json: bool,
) -> int:
    """
    Print what became of each incident; return the exit code.

    Raises:
        TimedOut: none was refused, but workers have not decided all of them.
    """
    counts = Counter(each.result for each in outcomes)
    if as_json:
        print_json({**_outcomes_json(outcomes, request, counts), **_total_json(selection)})
    else:
        print_table(
            ("incident", "outcome", "message"),
            [
                (format_incident_id(each.incident), each.result.text, each.message)
                for each in outcomes
            ],
            empty="No open incident matches.",
        )
        if counts:
            print_line(", ".join(f"{count} {result.text}" for result, count in counts.items()))
    if counts[ResolutionResult.REFUSED]:
        return EXIT_PARTIAL_FAILURE
    undecided = counts[ResolutionResult.UNDECIDED]
    not_recorded = counts[ResolutionResult.NOT_RECORDED]
    if undecided or not_recorded:
        raise TimedOut(
            f"No worker has decided {undecided} incidents in time; those are recorded."
            f" {not_recorded} are not recorded: run the same command again."
        )
    return 0


def count_by_group(incidents: Sequence[StoredIncident]) -> list[tuple[str, str, str, int]]:
    """Count incidents by cause, step and saga, the largest group first."""
    counts = Counter((each.cause, each.step, each.saga) for each in incidents)
    return [(*group, count) for group, count in counts.most_common()]


def _total_json(selection: IncidentSelection) -> dict[str, Any]:
    """How many incidents match without the limit."""
    return {"total": selection.total.count, "total_exact": selection.total.exact}


def _outcomes_json(
    outcomes: Sequence[ResolutionOutcome],
    request: ResolutionRequest,
    counts: Counter[ResolutionResult],
) -> dict[str, Any]:
    return {
        "action": request.action,
        **{result.value: counts[result] for result in ResolutionResult},
        "outcomes": [
            {
                "id": format_incident_id(each.incident),
                "run_id": each.incident.run_id,
                "outcome": each.result,
                "message": each.message,
            }
            for each in outcomes
        ],
    }
