"""The state diagram of a run, generated from the table of its transitions."""

from saga_engine.decider.evolve import RUN_TRANSITIONS
from saga_engine.vocabulary import Status


def run_diagram() -> str:
    """Which status of a run may follow which, as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.RUNNING}"]
    for status in Status:
        next_statuses = [each for each in Status if each in RUN_TRANSITIONS[status]]
        lines += [f"    {status} --> {next_status}" for next_status in next_statuses]
        if status.is_finished:
            lines.append(f"    {status} --> [*]")
    return "\n".join(lines) + "\n"
