"""What the planner ``python`` reads: its instructions, and programs for it to imitate."""

from __future__ import annotations

import ast

from pydantic import BaseModel, ConfigDict


class ProgramExample(BaseModel):
    """A question and a program that answers it well.

    Attributes:
        question: in a user's words.
        program: in the subset of Python, ``answer = …`` included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    program: str

    def calls(self) -> frozenset[str]:
        """Names of the functions that the program calls, builtins included.

        Raises:
            SyntaxError: the program is no Python.
        """
        return frozenset(
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(self.program))
            if isinstance(node, ast.Call)
        )


PROGRAM = """\
Write a short Python program that answers the question. Write only the program.

- Take facts only from the functions below, and compute with Python.
- A str has no fields: pass a name to a function to get its record.
- Compare and collect names, not records.
- The last line assigns what was asked for: answer = ... If no function is needed, write only pass.
{guidelines}
{tools}"""

PROGRAM_REPLAN = """\
Question: {question}

This program was written before:
{program}

Known from its calls:
{observations}

That did not suffice: {reason}
Write a new program that answers the question. It cannot use variables of the program before. \
Do not repeat a call that failed in the same words."""

PROGRAM_REPAIR = """\
{asked}

The program so far, which stays as it is:
{program}

What was written next cannot be used:
{problems}

Write only the rest of the program, corrected."""


def _example(question: str, *lines: str) -> ProgramExample:
    return ProgramExample(question=question, program="\n".join(lines))


# A small model heeds the last ones most, so the plainest forms stand there.
PROGRAM_POOL = (
    _example(
        "How far is 12% of 250 from its square root?",
        "part = 0.12 * 250",
        "answer = part - part**0.5",
    ),
    _example(
        "Which has the higher population density, Kenya or Chile, and by what factor?",
        'records = [country("Kenya"), country("Chile")]',
        "records.sort(key=lambda c: c.population / c.area_km2)",
        "low, high = records",
        "factor = (high.population / high.area_km2) / (low.population / low.area_km2)",
        'answer = f"{high.name}, {factor:.4g} times as high"',
    ),
    _example(
        "What is the average area of the countries of South America that border Peru?",
        'neighbours = [country(name) for name in country("Peru").neighbours]',
        "areas = [c.area_km2 for c in neighbours]",
        "answer = sum(areas) / len(areas)",
    ),
    _example(
        "How many countries of Oceania use the Australian dollar?",
        'records = [country(name) for name in countries("Oceania")]',
        'answer = len([c for c in records if c.currency == "AUD"])',
    ),
    _example(
        "Which three countries of Asia are the most densely populated?",
        'records = [country(name) for name in countries("Asia")]',
        "records.sort(key=lambda c: c.population / c.area_km2, reverse=True)",
        "answer = [c.name for c in records[:3]]",
    ),
    _example(
        "Which countries border Zambia but not Botswana?",
        'first = set(country("Zambia").neighbours)',
        'second = set(country("Botswana").neighbours)',
        "answer = sorted(first - second)",
    ),
    _example(
        "If Quito has more people than Hanoi, what is the currency of Ecuador, else of Vietnam?",
        'if city("Quito").population > city("Hanoi").population:',
        '    answer = country("Ecuador").currency_name',
        "else:",
        '    answer = country("Vietnam").currency_name',
    ),
    _example(
        "What is the time zone of the capital of the smallest neighbour of Mali?",
        'neighbours = [country(name) for name in country("Mali").neighbours]',
        "smallest = min(neighbours, key=lambda c: c.area_km2)",
        "answer = city(smallest.capital).timezone",
    ),
    _example(
        "Which neighbours of Sudan have more than 20 million people?",
        'neighbours = [country(name) for name in country("Sudan").neighbours]',
        "answer = [c.name for c in neighbours if c.population > 20_000_000]",
    ),
)

FAREWELL = _example("Thank you, that is all!", "pass")
"""An example without calls, which fits any tools: not every message needs one."""
