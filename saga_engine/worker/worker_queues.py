"""
The queues that a worker consumes: replies, requests and dead letters.

The queues of replies are shared out among the workers, so that the worker that has a run in its
cache gets its replies. Queues with a higher number than the setting are left from an earlier,
larger setting; replies to commands sent under it still come to them. They are consumed as long as
they exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.queue_sharing import SharedQueues
from saga_engine.protocol.topology import DEAD_LETTERS, REQUESTS, reply_queue
from saga_engine.settings import Settings
from saga_engine.settings.batches import MAX_REPLY_QUEUES

OWNER_SHARE = 0.8
"""Share of the prefetch of a queue for its owner; the rest is for standbys, the owner included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerQueues:
    """
    The queues of a worker.

    Args:
        required: the prefetch of each queue that the worker declares.
        earlier: the prefetch of each queue of replies that is consumed if it exists.
        urgent: the queues of replies.
        shared: the queues that the workers share out.
    """

    required: Mapping[str, int]
    earlier: Mapping[str, int]
    urgent: tuple[str, ...]
    shared: SharedQueues | None


def create_consumer(connection: SupervisedConnection) -> Consumer:
    """Make the consumer of a worker, which `async with` starts."""
    queues = worker_queues(connection.settings)
    return Consumer(
        connection,
        tuple(queues.required),
        prefetch={**queues.required, **queues.earlier},
        urgent=queues.urgent,
        optional=tuple(queues.earlier),
        shared=queues.shared,
    )


def worker_queues(settings: Settings) -> WorkerQueues:
    """Return the queues of a worker with these settings."""
    count = settings.reply_queues
    names = tuple(map(reply_queue, range(count)))
    earlier = tuple(map(reply_queue, range(count, MAX_REPLY_QUEUES)))
    owner_prefetch = _owner_prefetch(settings)
    prefetch = {
        # Requests come first: the consumers of this queue are the workers that are counted.
        REQUESTS: settings.request_prefetch,
        **dict.fromkeys(names, max(1, settings.reply_prefetch // count - owner_prefetch)),
        DEAD_LETTERS: settings.dead_letter_prefetch,
    }
    earlier_prefetch = max(1, settings.reply_prefetch // MAX_REPLY_QUEUES)
    return WorkerQueues(
        required=prefetch,
        earlier=dict.fromkeys(earlier, earlier_prefetch),
        urgent=(*names, *earlier),
        shared=SharedQueues(names=names, owner_prefetch=owner_prefetch, counted_queue=REQUESTS)
        if count > 1
        else None,
    )


def _owner_prefetch(settings: Settings) -> int:
    """The prefetch of the owner of a queue; of one queue no worker is the owner."""
    if settings.reply_queues == 1:
        return 0
    return max(1, int(settings.reply_prefetch / settings.reply_queues * OWNER_SHARE))
