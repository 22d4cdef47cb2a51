"""The prompts of the planners that go from result to result: ``function-calling`` and ``react``.

Both planners show the same worked examples, so that a comparison of the two is one of their ways
of planning.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

FUNCTIONS = """\
Answer the question with the functions.

- Call all functions that do not need each other's results at once, in one turn.
- Take facts only from functions. Compute what is asked with functions: also a sum, a ratio, a \
factor.
- Call only what the question needs, and nothing twice.
- As soon as the results suffice, answer in a short sentence with the numbers that they gave.
{guidelines}"""

REACT = """\
Answer the question with the tools, step by step. In each step write a thought, and then \
either one call of a tool or the answer:

Thought: what is needed next
Action: tool(arguments)

Thought: what the observations say
Answer: a short sentence with the numbers that they gave

- After each action you are shown the observation. Take facts only from observations.
- Compute what is asked with tools: also a sum, a ratio, a factor.
- Call only what the question needs, and nothing twice.
{guidelines}
Tools:
{tools}"""

AGAIN = """\
{question}

Known from earlier calls:
{observations}

That is not enough: {reason}"""

LAST_TURN = "No further calls can be made: answer as well as the results allow."


class TrajectoryStep(BaseModel):
    """One call of a worked example.

    Attributes:
        thought: the reason for the call.
        call: in the plan language, without a number; its arguments are constants.
        result: the result as the tool shows it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    thought: str
    call: str
    result: str


class Trajectory(BaseModel):
    """A question worked through to its answer.

    Attributes:
        question: in a user's words.
        turns: the calls by turn; those of one turn do not need each other's results.
        thought: the conclusion from the results.
        answer: the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    turns: tuple[tuple[TrajectoryStep, ...], ...]
    thought: str
    answer: str

    @property
    def tools(self) -> frozenset[str]:
        """Names of the tools that the calls use."""
        return frozenset(step.call.partition("(")[0] for turn in self.turns for step in turn)


def _country(name: str, people: int, area: float, capital: str, other_fields: str) -> str:
    return (
        f'{{"name": "{name}", "population": {people}, "area_km2": {area}, "capital": "{capital}", '
        f"{other_fields}}}"
    )


_KENYA = _country(
    "Kenya",
    51393010,
    582650.0,
    "Nairobi",
    '"continent": "Africa", "currency": "KES", "currency_name": "Shilling", "neighbours": '
    '["Ethiopia", "Somalia", "South Sudan", "Tanzania", "Uganda"]',
)
_CHILE = _country(
    "Chile",
    18729160,
    756950.0,
    "Santiago",
    '"continent": "South America", "currency": "CLP", "currency_name": "Peso", "neighbours": '
    '["Argentina", "Bolivia", "Peru"]',
)

_GABON = _country(
    "Gabon",
    2119275,
    267667.0,
    "Libreville",
    '"continent": "Africa", "currency": "XAF", "currency_name": "Franc", "neighbours": '
    '["Cameroon", "Equatorial Guinea", "Republic of the Congo"]',
)
_BENIN = _country(
    "Benin",
    11485048,
    112620.0,
    "Porto-Novo",
    '"continent": "Africa", "currency": "XOF", "currency_name": "Franc", "neighbours": '
    '["Burkina Faso", "Niger", "Nigeria", "Togo"]',
)

TRAJECTORIES = (
    Trajectory(
        question="Thank you, that is all!",
        turns=(),
        thought="No tool is needed.",
        answer="You are welcome!",
    ),
    Trajectory(
        question="What is the capital of the larger country by area, Gabon or Benin?",
        turns=(
            (
                TrajectoryStep(
                    thought="I need the area of Gabon.",
                    call='country("Gabon")',
                    result=_GABON,
                ),
                TrajectoryStep(
                    thought="I need the same of Benin.", call='country("Benin")', result=_BENIN
                ),
            ),
        ),
        thought="267667 is more than 112620, so it is the capital of Gabon.",
        answer="The capital of Gabon, the larger of the two, is Libreville.",
    ),
    Trajectory(
        question="Which has the higher population density, Kenya or Chile, and by what factor?",
        turns=(
            (
                TrajectoryStep(
                    thought="I need population and area of Kenya.",
                    call='country("Kenya")',
                    result=_KENYA,
                ),
                TrajectoryStep(
                    thought="I need the same of Chile.", call='country("Chile")', result=_CHILE
                ),
            ),
            (
                TrajectoryStep(
                    thought="The density of Kenya is its population by its area.",
                    call='calc("51393010 / 582650")',
                    result="88.20562945164335",
                ),
                TrajectoryStep(
                    thought="The same for Chile.",
                    call='calc("18729160 / 756950")',
                    result="24.74292885923773",
                ),
            ),
            (
                TrajectoryStep(
                    thought="The factor is the larger density by the smaller one.",
                    call='calc("88.20562945164335 / 24.74292885923773")',
                    result="3.5648823125768287",
                ),
            ),
        ),
        thought="88.2 is more than 24.7, and the factor is 3.565.",
        answer="Kenya has the higher population density, 3.565 times that of Chile.",
    ),
)
"""General examples; those that fit the tools at hand are shown."""
