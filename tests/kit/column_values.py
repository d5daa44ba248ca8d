"""A value for each type of column that a declared change can write."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    REAL,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
ID = UUID("01938000-0000-7000-8000-000000000001")

STORED: list[tuple[Any, Any]] = [
    (SmallInteger(), -3),
    (Integer(), 2**31 - 1),
    (BigInteger(), -(2**63)),
    (Numeric(10, 2), Decimal("1.10")),
    (Numeric(), Decimal("0.000000000000000000000000000001")),
    (Numeric(10), 7),
    (Float(), 0.1),
    (Double(), 1e300),
    (Boolean(), True),
    (String(10), "größer"),
    (Text(), ""),
    (Enum("small", "large", name="size"), "large"),
    (DateTime(timezone=True), NOON),
    (DateTime(), NOON.replace(tzinfo=None)),
    (Date(), date(2026, 2, 28)),
    (Time(), time(23, 59, 59, 999999)),
    (Interval(), timedelta(days=1, microseconds=1)),
    (Uuid(), ID),
    (LargeBinary(), b"\x00\xff"),
    (JSON(), [1, {"a": None}]),
    (JSONB(), {"a": "é", "n": 2**70}),
    (JSONB(), {"a": "\\u0000"}),
    (JSON(), "\0"),
    (Numeric(5, 2), Decimal("-999.99")),
    (String(3), "äöü"),
    (REAL(), 0.5),
    (Float(24), 16777216.0),
    (TIMESTAMP(timezone=True, precision=6), NOON.replace(microsecond=1)),
    (Date(), date(9999, 12, 30)),
]
