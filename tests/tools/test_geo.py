"""The ``geo`` tools on the real data: right facts, forgiving look-ups, errors that help."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmcompiler.errors import ToolError
from llmcompiler.tools.geo import TOOLS, _countries, _once, city, countries, country


def test_a_country_has_typed_facts() -> None:
    facts = country.encode(country("Japan"))
    assert facts == {
        "name": "Japan",
        "population": 126529100,
        "area_km2": 377835.0,
        "capital": "Tokyo",
        "continent": "Asia",
        "currency": "JPY",
        "currency_name": "Yen",
        "neighbours": [],
        "iso2": "JP",
        "iso3": "JPN",
    }
    assert country.return_schema is not None
    assert set(country.return_schema["required"]) == set(facts)


def test_neighbours_are_names() -> None:
    assert country("Portugal").neighbours == ["Spain"]
    assert "Germany" in country("France").neighbours


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("japan", "Japan"),
        (" JAPAN ", "Japan"),
        ("JP", "Japan"),
        ("jpn", "Japan"),
        ("USA", "United States"),
        ("U.S.A.", "United States"),
        ("US", "United States"),
        ("America", "United States"),
        ("the United States of America", "United States"),
        ("UK", "United Kingdom"),
        ("Great Britain", "United Kingdom"),
        ("Netherlands", "The Netherlands"),
        ("Holland", "The Netherlands"),
        ("Côte d'Ivoire", "Ivory Coast"),
        ("Cote d’Ivoire", "Ivory Coast"),
        ("Czech Republic", "Czechia"),
        ("Burma", "Myanmar"),
        ("Swaziland", "Eswatini"),
        ("Türkiye", "Turkey"),
        ("UAE", "United Arab Emirates"),
        ("Republic of Korea", "South Korea"),
        ("DPRK", "North Korea"),
        ("People's Republic of China", "China"),
        ("Republic of China", "Taiwan"),
        ("Russian Federation", "Russia"),
        ("Federal Republic of Germany", "Germany"),
        ("Kingdom of Spain", "Spain"),
        ("DR Congo", "Democratic Republic of the Congo"),
        ("D.R. Congo", "Democratic Republic of the Congo"),
        ("Republic of the Congo", "Republic of the Congo"),
        ("Bosnia & Herzegovina", "Bosnia and Herzegovina"),
        ("St. Lucia", "Saint Lucia"),
        ("Guinea Bissau", "Guinea-Bissau"),
        ("São Tomé and Príncipe", "Sao Tome and Principe"),
        ("Curaçao", "Curacao"),
        ("Palestine", "Palestinian Territory"),
        ("Vatican City", "Vatican"),
        ("Cape Verde", "Cabo Verde"),
        ("East Timor", "Timor Leste"),
        ("Deutschland", "Germany"),
        ("The Gambia", "Gambia"),
    ],
)
def test_countries_are_found_however_they_are_written(written: str, name: str) -> None:
    assert country(written).name == name


def test_every_country_is_found_by_its_name_and_codes() -> None:
    for iso, record in _countries().items():
        for written in (record.name, iso, record.iso3, record.name.upper()):
            assert country(written) is record


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Phillipines", "did you mean Philippines?"),
        ("Columbia", "did you mean Colombia?"),
        ("Korea", "South Korea or North Korea?"),
        ("Congo", "Democratic Republic of the Congo or Republic of the Congo?"),
        ("England", "a part of United Kingdom"),
        ("Europe", "it is a continent"),
        ("Atlantis", "there is no country 'Atlantis'"),
        ("", "there is no country ''"),
    ],
)
def test_an_unclear_country_is_an_error_with_a_way_out(written: str, words: str) -> None:
    with pytest.raises(ToolError) as caught:
        country(written)
    assert words in str(caught.value)


def test_a_country_that_the_data_call_empty_can_be_divided_by() -> None:
    assert country("Vatican").area_km2 == 0.44


@pytest.mark.parametrize(
    ("arguments", "name", "in_country"),
    [
        (("Paris",), "Paris", "France"),
        (("paris", "USA"), "Paris", "United States"),
        (("Paris, Texas",), "Paris", "United States"),
        (("Lyon, France",), "Lyon", "France"),
        (("New York",), "New York City", "United States"),
        (("Washington, D.C.",), "Washington", "United States"),
        (("Peking",), "Beijing", "China"),
        (("Saigon",), "Ho Chi Minh City", "Vietnam"),
        (("sao paulo",), "São Paulo", "Brazil"),
        (("Köln",), "Köln", "Germany"),
        (("Cologne",), "Köln", "Germany"),
        (("Lodz",), "Łódź", "Poland"),
        (("Cordoba",), "Córdoba", "Argentina"),
        (("Cordoba", "Spain"), "Córdoba", "Spain"),
        (("St. Petersburg",), "Saint Petersburg", "Russia"),
        (("The Hague",), "The Hague", "The Netherlands"),
    ],
)
def test_cities_are_found_and_the_largest_wins(
    arguments: tuple[str, ...], name: str, in_country: str
) -> None:
    result = city(*arguments)
    assert (result.name, result.country) == (name, in_country)


def test_a_city_has_typed_facts() -> None:
    assert city.encode(city("Tokyo")) == {
        "name": "Tokyo",
        "country": "Japan",
        "population": city("Tokyo").population,
        "latitude": pytest.approx(35.69, abs=0.01),
        "longitude": pytest.approx(139.69, abs=0.01),
        "timezone": "Asia/Tokyo",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Parris",), "did you mean Paris"),
        (("Berln", "Germany"), "there is no city 'Berln' in Germany"),
        (("Tokyo", "France"), "there is one in Japan"),
        (("Paris", "Frnace"), "did you mean France?"),
        (("",), "there is no city ''"),
    ],
)
def test_an_unknown_city_is_an_error_with_a_way_out(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ToolError) as caught:
        city(*arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize("written", ["South America", "south america", "SA", "Southern America"])
def test_countries_of_a_continent_are_names_that_country_takes(written: str) -> None:
    names = countries(written)
    assert names == sorted(names)
    assert {"Brazil", "Peru", "Suriname"} <= set(names)
    assert {country(name).continent for name in names} == {"South America"}


def test_countries_of_the_world_leave_out_those_that_are_no_more() -> None:
    assert countries() == countries("world")
    assert "Serbia and Montenegro" not in countries()
    assert len(countries()) == 250


def test_oceania_goes_by_other_names() -> None:
    assert countries("Oceania") == countries("Australia") == countries("Australia and Oceania")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Americas", "North America or South America?"),
        ("Afrika", "did you mean Africa?"),
        ("Mu", "there are Africa"),
    ],
)
def test_an_unclear_continent_is_an_error_with_a_way_out(written: str, words: str) -> None:
    with pytest.raises(ToolError) as caught:
        countries(written)
    assert words in str(caught.value)


def test_the_tools_are_pure_and_say_what_they_give() -> None:
    assert [tool.name for tool in TOOLS] == ["country", "city", "countries"]
    assert all(tool.pure for tool in TOOLS)
    assert country.signature().startswith(
        "country(name: str) -> {name: str, population: int, area_km2: float, capital: str"
    )
    assert countries.signature().startswith('countries(continent: "Africa" | "Antarctica" | ')


def test_many_first_calls_at_a_time_load_the_cities_once() -> None:
    loads = []
    gate = threading.Barrier(4)

    @_once
    def load() -> int:
        loads.append(1)
        return 7

    def call() -> int:
        gate.wait()
        return load()

    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(call) for _ in range(4)]
    assert [result.result() for result in results] == [7] * 4
    assert loads == [1]
