"""
The other side of a saga, in the user's services: commands performed once, and answered.

    Delivery -> shift -> performer -> barrier -> the user's handler -> replies -> acknowledgement

service connects and shift works; participant is what users declare with; handler checks and calls
one of their functions, in a task of its own (calls); verdict turns what it raises into an answer;
barrier makes an effect happen once, in a transaction of database, which watchdog watches; while
that is away (outage) commands wait. repeats bounds log lines. Performers in other languages need
docs/protocol.md and none of this.
"""

from saga_engine.participant.context import CommandContext
from saga_engine.participant.participant import Participant
from saga_engine.participant.refusal import Failed, Rejected

__all__ = ["CommandContext", "Failed", "Participant", "Rejected"]
