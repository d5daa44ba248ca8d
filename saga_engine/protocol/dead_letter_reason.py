"""Why a message is dead-lettered although it can be read; docs/protocol.md lists the reasons."""

from enum import StrEnum


class DeadLetterReason(StrEnum):
    """
    Why a worker or participant dead-letters a message, or a request that is stored in PostgreSQL.

    It is stored with the dead letter and is a log key and a label of metrics. A message that cannot
    be read has an `UnreadableReason` instead.
    """

    UNAUTHORIZED_SENDER = "unauthorized_sender"  # see the settings authorized_*_users
    INVALID_RUN_ID = "invalid_run_id"
    INVALID_INPUT = "invalid_input"
    INPUT_UNDECRYPTABLE = "input_undecryptable"  # the worker does not have its key
    UNKNOWN_SAGA = "unknown_saga"
    UNKNOWN_RUN = "unknown_run"
    CODE_KILLED_WORKER = "code_killed_worker"  # the call it needs has ended too many workers
    INTERNAL_ERROR = "internal_error"  # a bug of the engine
    # a participant cannot deliver its reply to this command
    REPLY_UNROUTABLE = "reply_unroutable"
    REPLY_UNPUBLISHABLE = "reply_unpublishable"
    # RabbitMQ dead-lettered it (guide "Dead Letter Exchanges")
    BROKER_REJECTED = "broker_rejected"
    BROKER_EXPIRED = "broker_expired"
    BROKER_MAXLEN = "broker_maxlen"
    BROKER_DELIVERY_LIMIT = "broker_delivery_limit"
    BROKER_OTHER = "broker_other"
