"""
The engine from the user's own code: start, wait, cancel.

    client          Client: requests over RabbitMQ
    requests        sending a request until it is answered
    waiting         waiting until a run is finished
    answer_queue    the client's queue, and the waiters for what arrives in it
    transactional   start_in_transaction: a start inside the caller's own transaction
    inputs          the arguments of a caller, checked and turned into JSON
    handle          RunHandle: what a caller gets back from a start

The engine does not run here: a worker executes the requests, now or when one is started.
"""

from saga_engine.client.client import Client
from saga_engine.client.handle import RunHandle
from saga_engine.client.transactional import start_in_transaction
from saga_engine.protocol.run_result import RunResult

__all__ = ["Client", "RunHandle", "RunResult", "start_in_transaction"]
