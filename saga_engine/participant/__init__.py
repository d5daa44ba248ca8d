"""
The other side of a saga, in the user's services: commands performed once, and answered.

    Delivery -> shift -> performer -> barrier -> the user's handler -> replies -> acknowledgement

    participant       what users declare with: which of their functions performs which command
    service           the composition root of a participant process
    dispatcher        participants at work over connections that are there
    executor          one command, from what arrived to what is replied
    handler           one of the user's functions: checked when it is declared, called with JSON
    calls             calls of handlers, each in a task of its own
    context           what a handler may know of the command it performs
    errors            what a handler raises to say no: Rejected or Failed
    verdict           what an exception of the user's code means as an answer
    barrier           makes an effect happen once: one row for each command
    lost_statements   whether a statement that takes long is still at work
    database          the participant's own database: one transaction for one command
    outage            an outage of that database, during which commands wait
    in_progress       commands that wait for another delivery of theirs
    reply_publisher   replies published in batches, and only then their commands acknowledged

Performers in other languages need docs/protocol.md and none of this.
"""

from saga_engine.participant.context import CommandContext
from saga_engine.participant.errors import Failed, Rejected
from saga_engine.participant.participant import Participant

__all__ = ["CommandContext", "Failed", "Participant", "Rejected"]
