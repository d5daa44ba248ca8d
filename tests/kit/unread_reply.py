"""A run with a reply that could not be read."""

from pydantic import BaseModel

from saga_engine import Saga
from tests.kit.decider_scenario import (
    DeciderScenario,
    add_step,
)


class Ticket(BaseModel):
    """The reply of the first step."""

    number: int


def unread_reply_scenario() -> DeciderScenario:
    """The first step waits for an operator, and the next one needs its reply."""
    saga = Saga("needy", version=1, input=dict)
    add_step(saga, "print_it", reply=Ticket)

    @saga.step(command="show.it", read_only=True)
    def show(print_it: Ticket) -> dict:
        return {"number": print_it.number}

    scenario = DeciderScenario(saga)
    scenario.malformed_reply("print_it")
    return scenario
