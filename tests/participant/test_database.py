from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.embedded.process import free_port
from saga_engine.participant.database import Database
from saga_engine.settings import Settings


async def test_what_is_said_of_a_database_has_no_password_wherever_the_url_has_it():
    url = f"postgresql+asyncpg://me:hunter1@/shop?host=127.0.0.1:{free_port()}&password=hunter2"
    theirs = create_async_engine(url)
    for given in (url, theirs):
        database = Database(given, Settings())
        problem = await database.problem()
        assert "me@127.0.0.1" in problem
        assert "hunter" not in problem
        await database.close()
    await theirs.dispose()
