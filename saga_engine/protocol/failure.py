"""How a failure is written as the object that travels, for what needs no connection to a broker."""

from saga_engine.vocabulary import Failure, Json


def failure_json(failure: Failure) -> dict[str, Json]:
    """Write a failure as {code, message, details}."""
    return {"code": failure.code, "message": failure.message, "details": failure.details}
