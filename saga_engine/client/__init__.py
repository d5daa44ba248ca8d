"""
The engine from the user's own code: start, wait, cancel.

    client          Client: over RabbitMQ, with an answer
    transactional   start_in: inside the caller's own transaction
    answer_queue    the client's queue, and who waits for what in it
    inputs          what a caller hands over, as JSON
    handle          what a caller gets back

No engine runs here: a worker does what is asked, now or when there is one.
"""

from saga_engine.client.client import Client
from saga_engine.client.handle import RunHandle, RunResult
from saga_engine.client.transactional import start_in_transaction

__all__ = ["Client", "RunHandle", "RunResult", "start_in_transaction"]
