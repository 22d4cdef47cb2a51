"""The prompts of planners and joiners, as data.

All that a model reads stands here, except for the question, the tools and the results. Each text
can be replaced from Python, or from a TOML or JSON file. Placeholders are names in braces; other
braces are text.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from llmcompiler.errors import PlanError, UsageError
from llmcompiler.prompting.program_prompts import (
    PROGRAM,
    PROGRAM_POOL,
    PROGRAM_REPAIR,
    PROGRAM_REPLAN,
    ProgramExample,
)
from llmcompiler.prompting.turn_prompts import (
    AGAIN,
    FUNCTIONS,
    LAST_TURN,
    REACT,
    TRAJECTORIES,
    Trajectory,
)

_CALL = re.compile(r"^\s*(?:\d+\s*[.)]\s*)?([^\W\d][\w.\-]*)\s*\(", re.MULTILINE)
_PLACEHOLDERS = {
    "planner": ("tools",),
    "question": ("question",),
    "replan": ("question", "observations", "reason", "next_id"),
    "repair": ("asked", "plan", "problems", "next_id"),
    "structured": ("tools",),
    "structured_repair": ("problems",),
    "unused": ("asked", "plan", "numbers", "next_id"),
    "join": ("question", "steps", "results"),
    "steps": ("steps",),
    "ungrounded": ("missing",),
    "join_empty": ("question",),
    "react": ("tools",),
    "again": ("question", "observations", "reason"),
    "program": ("tools",),
    "program_repair": ("asked", "program", "problems"),
    "program_replan": ("question", "program", "observations", "reason"),
}


JOINER_FIELDS = frozenset(
    ("joiner", "joiner_guidelines", "joiner_examples", "join", "steps", "join_empty", "ungrounded")
)
"""The texts that the joiner's model reads; the others are the planner's."""


class Example(BaseModel):
    """A question and a plan that answers it well.

    Attributes:
        question: in a user's words.
        plan: in the plan language, ``join()`` included.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    plan: str

    @property
    def tools(self) -> frozenset[str]:
        """Names of the tools that the plan calls."""
        return frozenset(_CALL.findall(self.plan)) - {"join"}


class JoinerExample(BaseModel):
    """Results, and the decision that a joiner should take on them.

    Attributes:
        question: in a user's words.
        steps: results that other results were computed from, a line each.
        results: the other results, a line each.
        text: the answer, or what is missing for an answer.
        action: ``answer`` or ``replan``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    steps: tuple[str, ...] = ()
    results: tuple[str, ...]
    text: str
    action: Literal["answer", "replan"] = "answer"


_PLANNER = """\
Write a plan of tool calls that answers the question. Write only the plan.

- One call a line: N. tool(arguments)
- $N is the result of line N, $N.field a field of it. [*] makes the call for each item of a list.
- Take facts only from tools. Compute what is asked with tools: also a sum, a ratio, a factor.
- Make every call that the question needs, and no other; none twice.
- End with join(). If no tool is needed, the plan is only join().
{guidelines}
Tools:
{tools}"""

_REPLAN = """\
Question: {question}

Known from earlier calls:
{observations}

That is not enough: {reason}
Write a plan of only the calls that are still missing, numbered from {next_id}. \
Do not repeat a call that failed in the same words."""

_REPAIR = """\
{asked}

The plan so far, which stays as it is:
{plan}

What was written next cannot be used:
{problems}

Write only the rest of the plan, corrected, numbered from {next_id}."""

_UNUSED = """\
{asked}

The plan so far, which stays as it is:
{plan}

No call in it uses {numbers}.
Write only the calls that are still missing, numbered from {next_id}, or only join()."""

_STRUCTURED = """\
Write a plan of tool calls that answers the question, as JSON:
{"tasks": [{"id": 1, "tool": name, "args": {parameter: value}}, ...]}

- "$1" is the result of task 1, "$1.field" a field of it. "$1[*]" makes the call for each item.
- Take facts only from tools, and compute with tools what is asked.
- Call only what the question needs, and nothing twice. If no tool is needed, tasks is empty.
{guidelines}
Tools:
{tools}"""

_STRUCTURED_REPAIR = """\
That cannot be used:
{problems}

Write the whole plan again, corrected."""

_JOINER = """\
Answer the question from the results, in JSON.

- text: a short sentence that answers all that was asked. Copy names and numbers from the results, \
and do no arithmetic. Where the question names candidates, begin with the one that is right.
- action: "answer", or "replan" if the results lack a fact that the question needs; text then says \
which.
{guidelines}"""

# The countries are invented: a real one might be a country that the question is about.
_JOINER_EXAMPLES = (
    JoinerExample(
        question="Which country's capital has more people, Ruritania's or Borduria's?",
        results=('largest(2 records, by="people") = Szohod (Borduria.capital): people: 1,297,281',),
        text="Borduria's capital has more people: Szohod, with 1,297,281 inhabitants.",
    ),
    JoinerExample(
        question="How old are the members of the Reds and the Blues on average, taken together?",
        steps=(
            'team("Reds") = members: 12, years: 372',
            'team("Blues") = members: 9, years: 207',
        ),
        results=('calc("(Reds.years + Blues.years) / (Reds.members + Blues.members)") = 27.571',),
        text="Taken together, they are 27.571 years old on average.",
    ),
    JoinerExample(
        question="Take the more populous of Syldavia and Freedonia. What is its currency?",
        results=(
            'largest(2 records, by="people") = Syldavia: people: 11,485,048, currency: SYK (khor)',
        ),
        text="The currency of Syldavia, the more populous of the two, is the khor (SYK).",
    ),
    JoinerExample(
        question="Which has the larger area, Ruritania or Zubrowka, and by what factor?",
        steps=("area_km2: Zubrowka = 285,220 (highest); Ruritania = 167,950 (lowest)",),
        results=('calc("Zubrowka.area_km2 / Ruritania.area_km2") = 1.6982',),
        text="Zubrowka has the larger area, 285,220 km2 against 167,950 km2: 1.6982 times as much.",
    ),
)


def _example(question: str, *calls: str) -> Example:
    lines = [f"{number}. {call}" for number, call in enumerate((*calls, "join()"), 1)]
    return Example(question=question, plan="\n".join(lines))


# A small model heeds the last ones most, so the plainest forms stand there.
_POOL = (
    _example(
        "What is 12% of 250, and what is the square of that?",
        'calc("0.12 * 250")',
        'calc("$1 ** 2")',
    ),
    _example(
        "What are the neighbours of Chad, and how many are there?",
        'country("Chad")',
        'calc("len($1.neighbours)")',
    ),
    _example(
        "What percentage of the people of Kenya live in Nairobi?",
        'country("Kenya")',
        'city("Nairobi")',
        'calc("$2.population / $1.population * 100")',
    ),
    _example(
        "Which city has more inhabitants, Quito or Hanoi, and by how many?",
        'city("Quito")',
        'city("Hanoi")',
        'calc("max($1.population, $2.population) - min($1.population, $2.population)")',
    ),
    _example(
        "Whose capital has more inhabitants, that of Mali or that of Niger?",
        'country("Mali")',
        'country("Niger")',
        "city($1.capital)",
        "city($2.capital)",
        'largest([$3, $4], by="population")',
    ),
    _example(
        "Which of the countries that border Sudan is the most densely populated?",
        'country("Sudan")',
        "country($1.neighbours[*])",
        'largest($2, by="population / area_km2")',
    ),
    _example(
        "How many people live in Europe?",
        'countries("Europe")',
        "country($1[*])",
        'total($2, of="population")',
    ),
    _example(
        "What is the currency of Asia's smallest country?",
        'countries("Asia")',
        "country($1[*])",
        'smallest($2, by="area_km2")',
    ),
    _example(
        "What is the capital of Europe's most densely populated country?",
        'countries("Europe")',
        "country($1[*])",
        'largest($2, by="population / area_km2")',
    ),
    _example(
        "How large are Gabon and Benin together, compared with Nepal and Laos together?",
        'country("Gabon")',
        'country("Benin")',
        'country("Nepal")',
        'country("Laos")',
        'calc("($1.area_km2 + $2.area_km2) / ($3.area_km2 + $4.area_km2)")',
    ),
    _example(
        "What is the population density of Cuba and Haiti taken together?",
        'country("Cuba")',
        'country("Haiti")',
        'calc("($1.population + $2.population) / ($1.area_km2 + $2.area_km2)")',
    ),
    _example(
        "What is the capital of the least populous of Oman, Fiji and Togo?",
        'country("Oman")',
        'country("Fiji")',
        'country("Togo")',
        'smallest([$1, $2, $3], by="population")',
    ),
    _example(
        "Which city is the capital of the country with more land, Qatar or Angola?",
        'country("Qatar")',
        'country("Angola")',
        'largest([$1, $2], by="area_km2")',
    ),
    _example(
        "What is the total area of Malta, Yemen and Ghana?",
        'country("Malta")',
        'country("Yemen")',
        'country("Ghana")',
        'calc("$1.area_km2 + $2.area_km2 + $3.area_km2")',
    ),
    _example(
        "How many times as many people live in Laos as in Nepal?",
        'country("Laos")',
        'country("Nepal")',
        'calc("$1.population / $2.population")',
    ),
    _example(
        "Which has the higher population density, Kenya or Chile, and by what factor?",
        'country("Kenya")',
        'country("Chile")',
        'calc("$1.population / $1.area_km2")',
        'calc("$2.population / $2.area_km2")',
        'calc("max($3, $4) / min($3, $4)")',
    ),
    _example(
        "Why is the population of Egypt so unevenly spread?",
        'country("Egypt")',
        'think("Why is the population of this country so unevenly spread?", context=[$1])',
    ),
)


class Prompts(BaseModel):
    """The texts that models read, with defaults that suit small models.

    For a strong model, texts that the user does not set are those of ``strong_prompts``.

    Attributes:
        planner: the planner's instructions; ``{tools}``, ``{guidelines}`` and, for strong models,
            ``{today}`` are filled in.
        guidelines: your own rules for the planner, one per entry.
        examples: your own examples; those whose tools are not all at hand are left out.
        pool: general examples; those that fit the tools at hand are shown.
        question: asks the planner for a plan.
        replan: asks it for another plan.
        repair: asks it to go on after a mistake.
        unused: asks it to look again, if it joins before each number of the question stands in a
            call; an empty text leaves that request out.
        structured: instructions of the planner ``structured``; ``{tools}`` and ``{guidelines}`` are
            filled in.
        structured_repair: asks it for the whole plan again after mistakes.
        joiner: the joiner's instructions; ``{guidelines}`` and, for strong models, ``{today}`` are
            filled in.
        joiner_guidelines: your own rules for the joiner, one per entry.
        joiner_examples: decisions for the joiner to imitate.
        join: shows the joiner the results and asks for a decision; ``{steps}`` may be empty.
        steps: shows it the results that other results were computed from.
        join_empty: asks it for an answer where no tool was needed.
        ungrounded: added where it is asked again, because its answer had invented numbers.
        final: added where it may not ask for another plan.
        functions: instructions of the planner ``function-calling``.
        react: instructions of the planner ``react``; ``{tools}`` is filled in.
        again: asks these two planners for more, if the results did not suffice.
        last_turn: tells these two planners that they may make no further calls.
        trajectories: worked examples for these two planners; those whose tools are not all at hand
            are left out.
        reason: tells the planner about ``think``, where that tool is at hand.
        reasoning: replaces texts of reasoning strategies, by a key such as ``vote.solve``.
        program: instructions of the planner ``python``; ``{tools}`` and ``{guidelines}`` are filled
            in.
        program_repair: asks it for the rest of a program after a mistake.
        program_replan: asks it for another program.
        program_pool: general examples of programs; those that fit the tools at hand are shown.
        program_examples: your own examples of programs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    planner: str = _PLANNER
    guidelines: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    pool: tuple[Example, ...] = Field(default=_POOL, repr=False)
    question: str = "Question: {question}"
    replan: str = _REPLAN
    repair: str = _REPAIR
    unused: str = _UNUSED
    structured: str = _STRUCTURED
    structured_repair: str = _STRUCTURED_REPAIR
    joiner: str = _JOINER
    joiner_guidelines: tuple[str, ...] = ()
    joiner_examples: tuple[JoinerExample, ...] = Field(default=_JOINER_EXAMPLES, repr=False)
    join: str = "{steps}Results:\n{results}\n\nQuestion: {question}"
    steps: str = "Steps:\n{steps}\n\n"
    join_empty: str = "No tool was needed.\n\nQuestion: {question}"
    ungrounded: str = (
        "\nAn earlier answer held {missing}, which none of the results says. Copy names and "
        "numbers from the results, above all from those under Results."
    )
    functions: str = FUNCTIONS
    react: str = REACT
    again: str = AGAIN
    last_turn: str = LAST_TURN
    trajectories: tuple[Trajectory, ...] = Field(default=TRAJECTORIES, repr=False)
    final: str = "\nNo further calls can be made: answer as well as the results allow."

    reason: str = (
        "Where a result takes thought, not a look-up or a formula, call think(problem, "
        "context=[$N, ...]): several drafts are made and weighed."
    )
    reasoning: dict[str, str] = Field(default_factory=dict)
    program: str = PROGRAM
    program_repair: str = PROGRAM_REPAIR
    program_replan: str = PROGRAM_REPLAN
    program_pool: tuple[ProgramExample, ...] = Field(default=PROGRAM_POOL, repr=False)
    program_examples: tuple[ProgramExample, ...] = ()

    @field_validator(*_PLACEHOLDERS)
    @classmethod
    def _check_placeholders(cls, text: str, info: Any) -> str:
        placeholders = (
            () if info.field_name == "unused" and not text else _PLACEHOLDERS[info.field_name]
        )
        for name in placeholders:
            if f"{{{name}}}" not in text:
                raise ValueError(f"the text lacks the placeholder {{{name}}}")
        return text

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read texts from a ``.toml`` or ``.json`` file; other texts keep their default.

        Raises:
            UsageError: the file cannot be read, has an unknown field, or has a broken example.

        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
            data = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        except OSError as error:
            raise UsageError(f"cannot read the prompts in {file}: {error.strerror}") from None
        except ValueError as error:
            kind = "TOML" if file.suffix == ".toml" else "JSON"
            raise UsageError(f"{file} is not {kind}: {error}") from None
        try:
            prompts = cls.model_validate(data)
        except ValidationError as error:
            raise _describe_validation_error(file, error) from None
        _check_examples(file, prompts)
        return prompts


def _check_examples(file: Path, prompts: Prompts) -> None:
    """Refuse an example with a mistake in it: a model would imitate the mistake."""
    from llmcompiler.language import parse_plan

    for field in ("examples", "pool"):
        for number, example in enumerate(getattr(prompts, field)):
            try:
                parse_plan(example.plan)
            except PlanError as error:
                raise UsageError(
                    f"{file}: {field}.{number}.plan: {error.message}", hint=error.hint
                ) from None
    for field in ("program_examples", "program_pool"):
        for number, program in enumerate(getattr(prompts, field)):
            try:
                program.calls()
            except SyntaxError as error:
                raise UsageError(
                    f"{file}: {field}.{number}.program: {error.msg}",
                    hint="an example is a whole program in Python",
                ) from None


def _describe_validation_error(file: Path, error: ValidationError) -> UsageError:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    if first["type"] != "extra_forbidden":
        return UsageError(f"{file}: {where}: {first['msg'].removeprefix('Value error, ')}")
    fields = Example.model_fields if len(first["loc"]) > 1 else Prompts.model_fields
    close = difflib.get_close_matches(str(first["loc"][-1]), fields, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
    return UsageError(f"{file}: there is no prompt {where!r}", hint=hint)


def fill(template: str, **values: object) -> str:
    """Fill the placeholders of ``template``; other braces stay.

    Values are not scanned for placeholders: a question that contains ``{tools}`` stays as it is.
    """
    return re.sub(r"\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), template)


def bullets(lines: Iterable[str]) -> str:
    """Format the lines as a bulleted list, the continuation lines of an item indented."""
    return "\n".join("- " + line.replace("\n", "\n  ") for line in lines)
