"""The operations that failures are reported for: a log key, and a label of two metrics."""

from enum import StrEnum


class Operation(StrEnum):
    """What a process was doing when the database or its own code failed."""

    # what a worker does with messages
    DELIVERIES = "deliveries"
    BATCH = "batch"
    DECIDE = "decide"
    PUBLISH = "publish"
    TOKEN_KEYS = "token_keys"  # noqa: S105 - not a password
    # periodic duties of a worker
    PENDING_WORK = "pending_work"
    DUE_RUNS = "due_runs"
    PENDING_REQUESTS = "pending_requests"
    UNROUTABLE = "unroutable"
    OUTBOX_RESEND = "outbox_resend"
    OUTBOX_CLEANUP = "outbox_cleanup"
    CRASH_SUSPECTS = "crash_suspects"
    HEARTBEAT = "heartbeat"
    MAINTENANCE = "maintenance"
    PARTITIONS = "partitions"
    PURGE = "purge"
    SHUTDOWN = "shutdown"
    # a participant
    PARTICIPANT = "participant"
    LOST_STATEMENTS = "lost_statements"
    # a projector
    PROJECTION = "projection"
    FEED = "feed"
    # a consumer
    CONSUMER = "consumer"
