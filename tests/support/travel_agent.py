"""An agent of eight tools, and a model that answers eight questions as a strong one does.

The tools are of all kinds: async and sync, with pydantic models as arguments and as results, slow,
flaky, and writing.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field

from llmcompiler.errors import ToolError
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.loading import load_tools
from llmcompiler.tools.policy import Retry

Day = datetime.date


class Cabin(StrEnum):
    """Where one sits."""

    ECONOMY = "economy"
    BUSINESS = "business"


class Flight(BaseModel):
    """A flight with free seats."""

    id: str = Field(description="what book_flight takes")
    airline: str
    leaves: datetime.datetime = Field(description="local time of the airport of departure")
    price: float = Field(description="euros for one seat, taxes included", gt=0)


class Passenger(BaseModel):
    """Who flies; names as in the passport."""

    name: str = Field(min_length=1)
    born: Day
    miles_card: str | None = Field(default=None, pattern=r"^[A-Z]{2}\d{6}$")


class Rate(BaseModel):
    """A hotel's price of one night."""

    hotel: str
    nightly: int = Field(description="euros")
    stars: int = Field(ge=1, le=5)


class Booking(BaseModel):
    """A booking that is paid for."""

    reference: str
    flight: str
    seats: int


class Profile(BaseModel):
    """A traveller of the firm."""

    id: str
    name: str
    home: str = Field(description="IATA code of the nearest airport")
    born: Day
    cabin: Cabin


RATES = {
    "Lisbon": [
        Rate(hotel="Alfama Rooms", nightly=140, stars=3),
        Rate(hotel="Baixa Palace", nightly=210, stars=5),
        Rate(hotel="Casa do Rio", nightly=155, stars=4),
    ],
    "Porto": [Rate(hotel="Ribeira Inn", nightly=95, stars=3)],
}
FLIGHTS = {
    ("OSL", "LIS"): [
        Flight(
            id="TP763", airline="TAP", leaves=datetime.datetime(2030, 5, 2, 12, 35), price=189.0
        ),
        Flight(
            id="DY1814", airline="Norwegian", leaves=datetime.datetime(2030, 5, 2, 6, 40), price=121
        ),
    ],
}


@tool
async def search_flights(
    origin: Annotated[str, Field(description="IATA code of an airport", pattern="^[A-Z]{3}$")],
    destination: Annotated[str, Field(description="IATA code", pattern="^[A-Z]{3}$")],
    day: Day,
    seats: Annotated[int, Field(ge=1, le=9)] = 1,
    cabin: Cabin = Cabin.ECONOMY,
    max_price: Annotated[float | None, Field(description="euros for one seat", gt=0)] = None,
) -> list[Flight]:
    """Find direct flights with free seats.

    Flights of partners are left out. There is no search for several days: make a call for each.

    Args:
        day: of departure, by the clock of the airport.

    Returns:
        The flights in the order of departure; an empty list if there are none.
    """
    found = FLIGHTS.get((origin, destination), []) if day == Day(2030, 5, 2) else []
    return sorted(
        (flight for flight in found if max_price is None or flight.price <= max_price),
        key=lambda flight: flight.leaves,
    )


@tool(effect="write")
def book_flight(
    flight: str,
    passengers: Annotated[list[Passenger], Field(min_length=1, max_length=9)],
    cabin: Cabin = Cabin.ECONOMY,
) -> Booking:
    """Book seats on a flight and pay for them.

    Args:
        flight: the id of a flight.
        passengers: one seat is booked for each.
    """
    return Booking(reference=f"R-{flight}-{len(passengers)}", flight=flight, seats=len(passengers))


@tool
def hotel_rates(city: str) -> list[Rate]:
    """What hotels of a city cost, in the order of their names."""
    if city not in RATES:
        raise ToolError(f"there are no hotels in {city}", hint="the name of a city, in English")
    return RATES[city]


@tool
async def profile(name: str) -> Profile:
    """The profile of a traveller.

    Args:
        name: first name, last name or both; the first match counts.
    """
    await asyncio.sleep(2)
    return Profile(id="E1", name="Ada Berg", home="OSL", born=Day(1990, 4, 1), cabin=Cabin.BUSINESS)


WEATHER_CALLS = [0]


@tool(retry=Retry(attempts=3))
async def weather(city: str, day: Day) -> str:
    """The weather forecast in a sentence, at most ten days ahead."""
    WEATHER_CALLS[0] += 1
    if WEATHER_CALLS[0] % 2:
        raise ToolError("the service does not answer", retryable=True)
    return f"In {city} it will be sunny and 24 °C."


@tool
async def visa_rules(nationality: str, country: str) -> dict[str, str | int | None]:
    """Whether a visa is needed. It asks the embassy's server, which takes its time.

    Args:
        nationality: ISO code of two letters.
        country: where one wants to go, as an ISO code of two letters.
    """
    await asyncio.sleep(30)
    return {"needed": "no", "days": 90, "note": None}


TRAVEL_TOOLS: dict[str, Tool] = load_tools(
    [search_flights, book_flight, hotel_rates, profile, weather, visa_rules]
) | {
    name: tool for name, tool in load_tools(("calc", "geo")).items() if name in ("calc", "smallest")
}


def answer(text: str, action: str = "answer") -> str:
    """What a joiner's model writes."""
    return json.dumps({"text": text, "action": action})


@dataclass(frozen=True)
class Story:
    """A question, and what a strong model writes for it.

    Attributes:
        name: the name of its golden file.
        question: in a user's words.
        texts: the model's answers, in order.
        answer: the answer of the run.
        seen: what the last prompt has to show.
    """

    name: str
    question: str
    texts: tuple[str, ...]
    answer: str
    seen: tuple[str, ...]


STORIES = (
    Story(
        "hotel",
        "Which hotel in Lisbon is the cheapest, and what do three nights there cost?",
        (
            (
                '1. hotel_rates("Lisbon")\n2. smallest($1, by="nightly")\n'
                '3. calc("3 * $2.nightly")\n4. join()\n'
            ),
            answer("Alfama Rooms is the cheapest: three nights cost 420 euros."),
        ),
        "Alfama Rooms is the cheapest: three nights cost 420 euros.",
        ("Alfama Rooms", "Baixa Palace", "Casa do Rio", "-> 420"),
    ),
    Story(
        "flights",
        "Which flights are there from Oslo to Lisbon on 2 May 2030?",
        (
            '1. search_flights("OSL", "LIS", "2030-05-02")\n2. join()\n',
            answer("DY1814 at 6:40 for 121 euros, and TP763 at 12:35 for 189 euros."),
        ),
        "DY1814 at 6:40 for 121 euros, and TP763 at 12:35 for 189 euros.",
        ("DY1814", "TP763", "2030-05-02T06:40:00", "121.0", "189.0"),
    ),
    Story(
        "named_results",
        "When can Ada leave for Lisbon on 2 May 2030, and in which cabin does she fly?",
        (
            (
                '1. profile("Ada")\n2. search_flights($1.home, "LIS", "2030-05-02", '
                "cabin=$1.cabin)\n"
                "3. join($1, $2)\n"
            ),
            answer("She flies business, at 6:40 or at 12:35."),
        ),
        "She flies business, at 6:40 or at 12:35.",
        ('"name": "Ada Berg"', '"cabin": "business"', "DY1814", "TP763", "3. join($1, $2)"),
    ),
    Story(
        "booking",
        "Book the cheapest flight from Oslo to Lisbon on 2 May 2030 for Ada.",
        (
            (
                '1. search_flights("OSL", "LIS", "2030-05-02")\n2. smallest($1, by="price")\n'
                '3. profile("Ada")\n'
                '4. book_flight($2.id, [{"name": $3.name, "born": $3.born}])\n5. join()\n'
            ),
            answer("Booked: R-DY1814-1, for 121 euros."),
        ),
        "Booked: R-DY1814-1, for 121 euros.",
        ("R-DY1814-1", "Norwegian", "Ada Berg"),
    ),
    Story(
        "replan",
        "What does the cheapest night in Oporto cost?",
        (
            '1. hotel_rates("Oporto")\n2. smallest($1, by="nightly")\n3. join()\n',
            answer("The city goes by the name of Porto in English.", "replan"),
            '3. hotel_rates("Porto")\n4. smallest($3, by="nightly")\n5. join()\n',
            answer("95 euros, at Ribeira Inn."),
        ),
        "95 euros, at Ribeira Inn.",
        ("there are no hotels in Oporto", "not called", "Ribeira Inn", "by the name of Porto"),
    ),
    Story(
        "flaky",
        "What will the weather be in Lisbon on 2 May 2030?",
        (
            '1. weather("Lisbon", "2030-05-02")\n2. join()\n',
            answer("Sunny, 24 degrees."),
        ),
        "Sunny, 24 degrees.",
        ("In Lisbon it will be sunny and 24 °C.",),
    ),
    Story(
        "slow",
        "Does a Norwegian need a visa for Portugal or for Brazil?",
        (
            '1. visa_rules("NO", "PT")\n2. visa_rules("NO", "BR")\n3. join()\n',
            answer("No, for neither, up to 90 days."),
        ),
        "No, for neither, up to 90 days.",
        ('visa_rules("NO", "BR")', '{"needed": "no", "days": 90, "note": null}'),
    ),
    Story(
        "fan_out",
        "What do hotels in Lisbon, Porto and Faro cost?",
        (
            (
                '1. hotel_rates("Lisbon")\n2. hotel_rates("Porto")\n3. hotel_rates("Faro")\n'
                '4. calc("2 * $1[*].nightly")\n5. join()\n'
            ),
            answer("Lisbon from 140, Porto from 95; there are none in Faro."),
        ),
        "Lisbon from 140, Porto from 95; there are none in Faro.",
        ("Ribeira Inn", "Baixa Palace", "failed: there are no hotels in Faro", "[280, 420, 310]"),
    ),
)
