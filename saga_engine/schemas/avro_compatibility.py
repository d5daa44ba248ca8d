"""Whether a reader with one Avro schema reads what was written with another: Avro's own checker."""

import json
import warnings
from typing import Any

from saga_engine.errors import ConfigurationError


def compare_avro(writer: Any, reader: Any) -> list[str]:
    """
    Compare two Avro schemas; return what is wrong, with its place in the reader's schema.

    Raises:
        ConfigurationError: the extra `avro` is not installed.
    """
    try:
        from avro.compatibility import ReaderWriterCompatibilityChecker  # noqa: PLC0415 - optional
        from avro.schema import parse  # noqa: PLC0415 - the same
    except ImportError:
        raise ConfigurationError(
            "The comparison needs avro, which is not installed. Install saga-engine[avro]."
        ) from None
    checker: Any = ReaderWriterCompatibilityChecker
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of logical types, which the checker does not compare
        result = checker().get_compatibility(
            reader=parse(json.dumps(reader)), writer=parse(json.dumps(writer))
        )
    if result.compatibility.name == "compatible":
        return []
    places = ", ".join(sorted(result.locations))
    return [f"{each} ({places})" for each in sorted(result.messages)]
