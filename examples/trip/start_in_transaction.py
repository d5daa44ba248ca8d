import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from examples.trip.saga import Trip, trips
from saga_engine import start_in_transaction


async def reserve(connection: AsyncConnection, trip: Trip) -> None:
    reservation = text("INSERT INTO reservation (trip_id) VALUES (:trip_id)")
    await connection.execute(reservation, {"trip_id": trip.trip_id})
    await start_in_transaction(connection, trips, trip, key=trip.trip_id)


async def main() -> None:
    database = create_async_engine(os.environ["SAGA_ENGINE_DATABASE_URL"])
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS reservation (trip_id text)"))
        await reserve(connection, Trip(trip_id="t-3", city="Porto"))
    await database.dispose()


if __name__ == "__main__":
    asyncio.run(main())
