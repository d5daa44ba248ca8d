"""The types that settings share: seconds, counts and bytes, with their bounds."""

from typing import Annotated

from pydantic import Field

Seconds = Annotated[float, Field(ge=0.001, le=86_400)]
"""
At least a millisecond: PostgreSQL counts in milliseconds, and reads a timeout of 0 as no timeout.
"""

Count = Annotated[int, Field(ge=1, le=100_000)]

Bytes = Annotated[int, Field(ge=1, le=134_217_728)]
