"""Create the tables of the read model: `python -m examples.shop.create_tables`."""

import asyncio

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from examples.shop.database import database_url
from examples.shop.projections import metadata


async def create_tables(url: str) -> None:
    """Create those that do not exist."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


if __name__ == "__main__":
    asyncio.run(create_tables(database_url()))
