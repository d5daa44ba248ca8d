"""A failure as a JSON object, in a module of its own that needs nothing else of the protocol."""

from saga_engine.vocabulary import Failure, Json


def failure_json(failure: Failure) -> dict[str, Json]:
    """Encode a failure as {code, message, details}."""
    return {"code": failure.code, "message": failure.message, "details": failure.details}
