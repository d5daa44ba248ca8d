"""The state diagram of a run, generated from the table of its transitions."""

from saga_engine.decider.evolve import TRANSITIONS
from saga_engine.vocabulary import Status


def statuses() -> str:
    """Which status of a run may follow which, as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.RUNNING}"]
    for status in Status:
        followers = [each for each in Status if each in TRANSITIONS[status]]
        lines += [f"    {status} --> {follower}" for follower in followers]
        if status.finished:
            lines.append(f"    {status} --> [*]")
    return "\n".join(lines) + "\n"
