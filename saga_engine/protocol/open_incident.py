"""What a client sees of an open incident, in an answer or when a run is finished."""

from dataclasses import dataclass
from datetime import datetime

from saga_engine.decider.run import Run
from saga_engine.vocabulary import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident:
    """
    What a client sees of an open incident of its run.

    It has neither a payload nor a participant's text, because any client may ask. `cause` is an
    IncidentCause; as text, because a newer engine may know more of them. `since` is when the
    incident was opened.
    """

    number: int
    step: str
    direction: Direction
    cause: str
    since: datetime

    def text(self, run_id: str) -> str:
        """The incident as one line of text."""
        return (
            f"incident {run_id}/{self.number}: {self.cause} at step {self.step}"
            f" ({self.direction}), since {self.since:%Y-%m-%d %H:%M:%S} UTC"
        )


def first_open_incident(run: Run) -> OpenIncident | None:
    """The first open incident of a run, without what a client must not see."""
    if not run.incidents:
        return None
    incident = run.incidents[min(run.incidents)]
    return OpenIncident(
        number=incident.number,
        step=incident.step,
        direction=incident.direction,
        cause=incident.cause,
        since=incident.opened_at,
    )
