"""Why a message is dead-lettered; docs/protocol.md, section 10, explains each reason."""

from enum import StrEnum


class DeadLetterReason(StrEnum):
    """
    Why a message, or a request that was stored in PostgreSQL, is dead-lettered.

    The reason is stored with the dead letter, and is a log key and a label of metrics.
    """

    # The message cannot be read: it breaks docs/protocol.md.
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    MALFORMED_JSON = "malformed_json"
    NOT_STORABLE = "not_storable"
    NOT_AN_OBJECT = "not_an_object"
    BAD_HEADERS = "bad_headers"
    BAD_OUTCOME = "bad_outcome"
    BAD_FAILURE = "bad_failure"
    BAD_COMMAND = "bad_command"
    BAD_REQUEST = "bad_request"
    UNCORRELATED_REPLY = "uncorrelated_reply"
    # The worker cannot process it.
    UNAUTHORIZED_SENDER = "unauthorized_sender"  # see the settings authorized_*_users
    INVALID_RUN_ID = "invalid_run_id"
    INVALID_INPUT = "invalid_input"
    INPUT_UNDECRYPTABLE = "input_undecryptable"  # the worker does not have its key
    UNKNOWN_SAGA = "unknown_saga"
    UNKNOWN_RUN = "unknown_run"
    CODE_KILLED_WORKER = "code_killed_worker"  # the call it needs has ended too many workers
    INTERNAL_ERROR = "internal_error"  # a bug of saga-engine
    # A participant cannot publish the reply.
    REPLY_UNROUTABLE = "reply_unroutable"
    REPLY_UNPUBLISHABLE = "reply_unpublishable"
    # RabbitMQ dead-lettered it (guide "Dead Letter Exchanges").
    BROKER_REJECTED = "broker_rejected"
    BROKER_EXPIRED = "broker_expired"
    BROKER_MAXLEN = "broker_maxlen"
    BROKER_DELIVERY_LIMIT = "broker_delivery_limit"
    BROKER_OTHER = "broker_other"
