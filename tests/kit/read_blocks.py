"""The blocks that a query reads."""

from sqlalchemy import text

ONE_MORE = 200
"""Pages: the levels of indexes, and what PostgreSQL cleans up on the way."""


BLOCKS = text(
    "SELECT coalesce(sum(pg_stat_get_xact_blocks_fetched(c.oid)), 0)::integer"
    " FROM pg_class AS c WHERE c.relnamespace IN"
    " ('saga_engine'::regnamespace, 'pg_toast'::regnamespace)"
)
