"""The SQLAlchemy engine of a user."""

from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import create_async_engine


@asynccontextmanager
async def user_engine(url):
    """An engine on a database of the tests."""
    engine = create_async_engine(url)
    try:
        yield engine
    finally:
        await engine.dispose()
