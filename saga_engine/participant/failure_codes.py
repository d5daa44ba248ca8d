"""The codes of failures that the participant kit itself replies with."""

from enum import StrEnum


class FailureCode(StrEnum):
    """Why a command failed without an error of its handler."""

    UNKNOWN_COMMAND = "unknown_command"
    INVALID_PAYLOAD = "invalid_payload"
    INVALID_RESULT = "invalid_result"
    TIMEOUT = "timeout"
    BARRIER_ROW_DELETED = "barrier_row_deleted"
    TRANSACTION_ENDED = "transaction_ended"  # the handler committed or rolled back itself
    TRANSACTION_FAILED = "transaction_failed"
    TRANSACTION_READ_ONLY = "transaction_read_only"
