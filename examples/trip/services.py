from examples.trip.saga import Flight, Trip
from saga_engine import Participant, Rejected

services = Participant("travel")


@services.command("flight.book")
async def book_flight(trip: Trip) -> Flight:
    return Flight(number=f"TP-{trip.trip_id}")


@services.compensation("flight.cancel", of="flight.book")
async def cancel_flight(trip: Trip) -> None:
    print(f"flight of {trip.trip_id} cancelled")


@services.command("hotel.book")
async def book_hotel(booking: dict[str, str]) -> None:
    if booking["city"] == "Atlantis":
        raise Rejected("no_such_city", "Atlantis has no hotels.")


@services.compensation("hotel.cancel", of="hotel.book")
async def cancel_hotel(trip: Trip) -> None:
    print(f"hotel of {trip.trip_id} cancelled")
