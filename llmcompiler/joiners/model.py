"""The joiner: it reads the results of a plan, and answers or asks for another plan.

``ModelJoiner`` asks a model for a decision of a fixed shape. Any object with a ``join`` method can
take its place.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from pydantic_core import from_json

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import Completion, Request, StreamFunction
from llmcompiler.llm.json_text import find_json
from llmcompiler.llm.messages import Message
from llmcompiler.llm.thinking import split_thinking
from llmcompiler.model_options import cut_off_note, explain_bound
from llmcompiler.plan.expressions import Reference
from llmcompiler.planners.base import PlanRound
from llmcompiler.prompting.digest import Digest
from llmcompiler.prompting.profile import SMALL, Profile
from llmcompiler.prompting.prompts import Prompts, bullets, fill
from llmcompiler.prompting.results import describe_results
from llmcompiler.prompting.size import (
    BYTES_PER_TOKEN,
    shorten_lines,
    shorten_message,
    shorten_text,
    size_of,
)
from llmcompiler.runtime.results import Observation
from llmcompiler.tools.base import Tool

Action: TypeAlias = Literal["answer", "replan"]


@dataclass(frozen=True, slots=True)
class JoinContext:
    """All that a joiner gets.

    Attributes:
        question: in the user's words.
        tools: the run's tools, whose rules trim long results.
        rounds: the run's plans with their results; the last one is to be judged.
        final: True if the joiner has to answer, and may not ask for another plan.
        ask: asks the joiner's model.
        ask_as: asks it under a name, for a joiner that asks several things at once: the log tells
            its calls apart by these names.
        profile: says what the joiner's model reads, and how its answer is checked.
        today: the day that prompts name, in a sentence; empty where they name none.

    """

    question: str
    tools: Mapping[str, Tool]
    rounds: tuple[PlanRound, ...]
    final: bool
    ask: StreamFunction
    ask_as: Callable[[str], StreamFunction]
    profile: Profile = SMALL
    today: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A joiner's decision.

    Attributes:
        kind: ``answer`` or ``replan``.
        text: the answer, or the reason for another plan.
        why: how several drafts led to the decision, in a sentence; empty for a single one.

    """

    kind: Action
    text: str
    why: str = ""


class Joiner(Protocol):
    """Anything that turns the results of a plan into a decision."""

    async def join(self, context: JoinContext) -> Decision:
        """Answer, or ask for another plan unless ``context.final`` is set.

        Raises:
            ModelError: the model failed or gave no answer.

        """
        ...


class ModelJoiner:
    """A joiner that asks a model for structured output.

    Args:
        prompts: the texts that the model reads.

    Replanning from a joiner is LLMCompiler's (Kim et al., arXiv 2312.04511, section 3.4).

    """

    def __init__(self, prompts: Prompts | None = None) -> None:
        self._prompts = prompts or Prompts()

    async def join(self, context: JoinContext) -> Decision:
        """See ``Joiner.join``.

        A strong model is asked once, whatever came of the plan. For a small model, if every result
        that the plan aims at is missing, the decision is another plan, without asking the model: it
        would answer all the same, with invented numbers. If the answer of a small model has numbers
        that stand in no result, the model is asked once more; if the wrong numbers came from the
        examples, it is asked without examples.
        """
        if (
            context.profile.replans_unasked
            and not context.final
            and (failures := _describe_failures(context.rounds[-1]))
        ):
            return Decision("replan", failures)
        messages = self._messages(context)
        decision = await self._ask(context, messages)
        if context.profile.checks_numbers:
            decision = await self._check_numbers(context, messages, decision)
        if not decision.text:
            raise ModelError("the joiner's model decided without a word", retryable=True)
        return Decision("answer", decision.text) if context.final else decision

    async def _check_numbers(
        self, context: JoinContext, messages: tuple[Message, ...], decision: Decision
    ) -> Decision:
        """The decision, or a second one if the first has numbers that stand in no result."""
        prompt = messages[-1].content
        ungrounded = find_ungrounded_numbers(decision.text, prompt)
        if (
            decision.kind == "answer"
            and any(plan_round.observations for plan_round in context.rounds)
            and ungrounded
        ):
            # The model does not see its wrong answer: a small model would only repeat it.
            complaint = fill(self._prompts.ungrounded, missing=", ".join(ungrounded))
            system, *examples, _ = messages
            sources = "\n".join((prompt, *(example.content for example in examples)))
            if len(find_ungrounded_numbers(decision.text, sources)) < len(ungrounded):
                examples = []  # a wrong number came from them
            second_messages = (system, *examples, Message("user", prompt + complaint))
            return await self._ask(context, second_messages)
        return decision

    async def _ask(self, context: JoinContext, messages: tuple[Message, ...]) -> Decision:
        """Ask for a decision, once more if the answer breaks off.

        An endpoint repeats a call by itself only if it fails before the first piece.
        """
        actions: tuple[Action, ...] = ("answer",) if context.final else ("answer", "replan")
        request = Request(messages, purpose="answer", schema=_decision_schema(actions))
        for is_last in (False, True):
            has_started = False
            try:
                async for piece in context.ask(request):
                    has_started = True
                    if isinstance(piece, Completion):
                        if piece.finish == "length":
                            return _read_cut_off(piece)
                        if piece.text.strip():
                            return _read_decision(piece.text)
            except ModelError as error:
                if is_last or not (has_started and error.retryable):
                    raise
            else:
                break
        raise ModelError("the joiner's model gave an empty answer", retryable=True)

    def _messages(self, context: JoinContext) -> tuple[Message, ...]:
        prompts = self._prompts
        prompt = (
            self._whole_text(context)
            if context.profile.whole_results
            else self._digest_text(context)
        )
        system = fill(
            prompts.joiner, guidelines=bullets(prompts.joiner_guidelines), today=context.today
        )
        messages = [Message("system", system)]
        for example in prompts.joiner_examples:
            text = self._question_text(
                example.question, bullets(example.steps), bullets(example.results)
            )
            messages.append(Message("user", text))
            decision = {"text": example.text, "action": example.action}
            messages.append(Message("assistant", json.dumps(decision, ensure_ascii=False)))
        messages.append(Message("user", prompt + (prompts.final if context.final else "")))
        return tuple(messages)

    def _whole_text(self, context: JoinContext) -> str:
        """The question, with every result of the run."""
        results = describe_results(context.rounds, context.tools, context.profile.result_tokens)
        return self._question_text(context.question, "", results)

    def _digest_text(self, context: JoinContext) -> str:
        """The question, with a digest of the results that the joins name."""
        observations: dict[int, Observation] = {}
        for plan_round in context.rounds:
            observations.update(plan_round.observations)
        task_ids = [
            task_id for plan_round in context.rounds for task_id in _select_tasks(plan_round)
        ]
        used_in_part, used_as_whole = _find_used_tasks(observations)
        digest = Digest(observations, context.tools, context.question)
        step_ids = [task_id for task_id in task_ids if task_id in used_in_part]
        used_ids = used_in_part | used_as_whole
        result_ids = [task_id for task_id in task_ids if task_id not in used_ids]
        limit = context.profile.result_tokens * BYTES_PER_TOKEN
        results = shorten_lines(digest.side_by_side(result_ids), limit)
        limit -= sum(map(size_of, results))
        steps = shorten_lines(digest.side_by_side(step_ids), limit)
        return self._question_text(context.question, bullets(steps), bullets(results))

    def _question_text(self, question: str, steps: str, results: str) -> str:
        """The question, with the results that matter most right before it."""
        prompts = self._prompts
        if not results:
            return fill(prompts.join_empty, question=question)
        before = fill(prompts.steps, steps=steps) if steps else ""
        return fill(prompts.join, steps=before, results=results, question=question)


def _describe_failures(plan_round: PlanRound) -> str:
    """The failures, if every result that the plan aims at is missing; else an empty string."""
    join = plan_round.plan.join
    aims = (join.on if join is not None else ()) or plan_round.plan.sinks()
    observations = plan_round.observations
    results = [observations[task_id] for task_id in aims if task_id in observations]
    if not results or any(result.status == "done" for result in results):
        return ""
    failures = "; ".join(
        f"{observation.task.tool}: {shorten_message(observation.failure.message)}"
        for observation in observations.values()
        if observation.status == "failed" and observation.failure
    )
    return shorten_text(failures, _MAX_REASON)


_MAX_REASON = 8000
"""Most bytes of a reason for another plan that is made of the messages of failed calls."""


def _find_used_tasks(observations: Mapping[int, Observation]) -> tuple[set[int], set[int]]:
    """The tasks whose results successful calls used in part, and those used only as a whole.

    The result of a call that took complete records, such as ``largest``, stands for these records:
    shown again, they only draw a small model's eye to what was not chosen.
    """
    in_part: set[int] = set()
    as_whole: set[int] = set()
    for observation in observations.values():
        for ref in observation.task.references():
            if observation.status == "done" and isinstance(ref, Reference):
                value = observations[ref.task].value if ref.task in observations else None
                takes_whole = not ref.path and isinstance(value, dict | list)
                (as_whole if takes_whole else in_part).add(ref.task)
    return in_part, as_whole - in_part


def _select_tasks(plan_round: PlanRound) -> tuple[int, ...]:
    """The tasks that the join names, all if it names none, and the tasks that did not succeed."""
    join = plan_round.plan.join
    named_ids = {*join.on} if join is not None and join.on else {*plan_round.observations}
    return tuple(
        task_id
        for task_id, observation in plan_round.observations.items()
        if task_id in named_ids or observation.status != "done"
    )


def _decision_schema(actions: tuple[Action, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            # The text comes first: a small model that has to decide first asks for another plan
            # although nothing is missing.
            "text": {"type": "string"},
            "action": {"type": "string", "enum": list(actions)},
        },
        "required": ["text", "action"],
        "additionalProperties": False,
    }


_PLAIN = re.compile(r"\A(answer|replan)\s*:\s*(.*)\Z", re.DOTALL | re.IGNORECASE)


def _read_decision(text: str) -> Decision:
    """Read a decision from a model's text, wherever in it the JSON stands.

    Text without such JSON comes from an endpoint that does not hold models to a schema. It is the
    answer as a whole, unless it starts with ``answer:`` or ``replan:``.
    """
    text = split_thinking(text).answer.strip()
    data = find_json(text, _is_decision)
    if data is not None:
        kind: Action = "replan" if data.get("action") == "replan" else "answer"
        return Decision(kind, data["text"].strip())
    if plain := _PLAIN.match(text):
        kind = "replan" if plain[1].lower() == "replan" else "answer"
        return Decision(kind, plain[2].strip())
    return Decision("answer", text)


def _is_decision(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str)


def _read_cut_off(completion: Completion) -> Decision:
    """Read the decision of a completion that ended at a bound.

    Raises:
        ModelError: it says nothing.
    """
    text = completion.text.strip()
    if not text:
        tokens = completion.usage.reasoning_tokens
        reason = explain_bound("answer", completion.bound, tokens)
        raise ModelError(
            f"the joiner's model wrote nothing: {reason}",
            hint="a model that thinks needs room for its thoughts: raise the bound, or lower "
            "reasoning_effort",
        )
    try:
        data = from_json(text[max(text.find("{"), 0) :], allow_partial="trailing-strings")
    except ValueError:
        data = None
    if isinstance(data, dict) and isinstance(data.get("text"), str):
        text = data["text"]
    decision = _read_decision(text)
    note = cut_off_note("answer", completion.bound)
    return dataclasses.replace(decision, text=decision.text and decision.text + note)


# Grounding: the numbers of an answer have to be numbers of the results. A model that is told to
# copy numbers sometimes calculates instead, and small models calculate badly.

TOLERANCE = 0.01
"""Largest relative difference between a number and its rounded form."""

_MAX_COUNT = 10
"""Whole numbers up to this one may count the things in a sentence, and pass as grounded."""

_NUMBER = re.compile(
    r"(?<![\w.])(\d[\d,\u00a0\u202f]*(?:\.\d+)?)\s*(thousand|million|billion|trillion|%|percent)?",
    re.IGNORECASE,
)
_SCALES = {
    "": 1.0,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "%": 0.01,
    "percent": 0.01,
}


def find_ungrounded_numbers(answer: str, source: str) -> list[str]:
    """Find the numbers in ``answer`` that are no number in ``source``, rounded or not.

    Scale words and percent signs count in both: ``125 million`` is 125,000,000, and ``7.7 %`` is
    0.077 as well as 7.7.
    """
    source_values = [value for number in _find_numbers(source) for value in number.values]
    return [
        number.text
        for number in _find_numbers(answer)
        if not (number.values[0] <= _MAX_COUNT and number.values[0].is_integer())
        and not any(
            abs(value - source_value) <= max(TOLERANCE * abs(source_value), rounding)
            for value, rounding in zip(number.values, number.roundings, strict=True)
            for source_value in source_values
        )
    ]


class _Number(NamedTuple):
    """A number in a text.

    Attributes:
        text: its spelling.
        values: its value, without and with the scale word.
        roundings: the largest error of each value by rounding to the digits in the text.
    """

    text: str
    values: tuple[float, float]
    roundings: tuple[float, float]


def _find_numbers(text: str) -> list[_Number]:
    numbers = []
    for match in _NUMBER.finditer(text):
        digits = re.sub(r"[^\d.]", "", match[1])
        value, scale = float(digits), _SCALES[(match[2] or "").lower()]
        half = 0.5 * 10.0 ** -len(digits.partition(".")[2])
        numbers.append(_Number(match[0].strip(), (value, value * scale), (half, half * scale)))
    return numbers
