from saga_engine.client import Client as Client
from saga_engine.participant import CommandContext as CommandContext
from saga_engine.participant import Failed as Failed
from saga_engine.participant import Participant as Participant
from saga_engine.participant import Rejected as Rejected
from saga_engine.saga.definition import Saga as Saga
from saga_engine.saga.retry import Retry as Retry
