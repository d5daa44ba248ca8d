"""Create the tables of the read model and the invoices: `python -m examples.shop.create_tables`."""

import asyncio

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from examples.shop import consumers, projections
from examples.shop.database import database_url


async def create_tables(url: str) -> None:
    """Create those that do not exist."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        for metadata in (projections.metadata, consumers.metadata):
            await connection.run_sync(metadata.create_all)


if __name__ == "__main__":
    asyncio.run(create_tables(database_url()))
