"""The joiner: from what the tools returned to an answer, or to the wish for another plan.

It is the one part that reads results, so it decides whether they suffice. ``ModelJoiner`` asks a
model for a decision of a fixed shape; any object with ``join`` can take its place. The module must
not know how tasks were planned or run.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from pydantic_core import from_json

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import Completion, Request, StreamFunction
from llmcompiler.llm.messages import Message
from llmcompiler.plan.expressions import Reference
from llmcompiler.planners.base import PlanRound
from llmcompiler.prompting.digest import Digest
from llmcompiler.prompting.grounding import ungrounded_numbers
from llmcompiler.prompting.prompts import Prompts, bullets, fill
from llmcompiler.runtime.results import Observation
from llmcompiler.tools.base import Tool

Action: TypeAlias = Literal["answer", "replan"]

MAX_TOKENS = 600
"""Most tokens of an answer; a model that repeats itself is stopped there."""


@dataclass(frozen=True, slots=True)
class JoinContext:
    """All that a joiner may know.

    Attributes:
        question: in the user's words.
        tools: whose rules trim long observations.
        rounds: the run's plans with their observations; the last is the one to judge.
        final: whether this must be the answer.
        ask: asks the joiner's model.
        ask_as: the same for a joiner that asks several things at once, whose calls the log then
            tells apart by a name for each.

    """

    question: str
    tools: Mapping[str, Tool]
    rounds: tuple[PlanRound, ...]
    final: bool
    ask: StreamFunction
    ask_as: Callable[[str], StreamFunction]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a joiner decided.

    Attributes:
        kind: whether ``text`` is the answer, or the reason for another plan.
        text: one or the other.
        why: how it was come to, in a sentence, where several drafts were made.

    """

    kind: Action
    text: str
    why: str = ""


class Joiner(Protocol):
    """Anything that turns observations into a decision."""

    async def join(self, context: JoinContext) -> Decision:
        """Answer, or ask for another plan unless ``context.final``.

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

        Where nothing that the plan was after came out, no model is asked: a small one would answer
        all the same, with numbers of its own. An answer with numbers that stand in no result is
        asked for once more; without the examples, if it is from them that it has them.
        """
        if not context.final and (lost := _all_lost(context.rounds[-1])):
            return Decision("replan", lost)
        messages = self._messages(context)
        decision = await self._ask(context, messages)
        asked = messages[-1].content
        wrong = ungrounded_numbers(decision.text, asked)
        if (
            decision.kind == "answer"
            and any(each.observations for each in context.rounds)
            and wrong
        ):
            # Its own wrong answer is not shown to it: a small model would only repeat it.
            complaint = fill(self._prompts.ungrounded, missing=", ".join(wrong))
            system, *examples, _ = messages
            shown = "\n".join(example.content for example in examples)
            if len(ungrounded_numbers(decision.text, f"{asked}\n{shown}")) < len(wrong):
                examples = []  # that is where a number came from
            again = (system, *examples, Message("user", asked + complaint))
            decision = await self._ask(context, again)
        if not decision.text:
            raise ModelError("the joiner's model decided without a word", retryable=True)
        return Decision("answer", decision.text) if context.final else decision

    async def _ask(self, context: JoinContext, messages: tuple[Message, ...]) -> Decision:
        """Ask for a decision; what breaks off on its way is asked for once more.

        An endpoint repeats by itself only what fails before its first piece.
        """
        actions: tuple[Action, ...] = ("answer",) if context.final else ("answer", "replan")
        request = Request(messages, max_tokens=MAX_TOKENS, schema=_schema(actions))
        for is_last in (False, True):
            begun = False
            try:
                async for piece in context.ask(request):
                    begun = True
                    if isinstance(piece, Completion) and piece.text.strip():
                        return _cut(piece.text) if piece.finish == "length" else _read(piece.text)
            except ModelError as error:
                if is_last or not (begun and error.retryable):
                    raise
            else:
                break
        raise ModelError("the joiner's model gave an empty answer", retryable=True)

    def _messages(self, context: JoinContext) -> tuple[Message, ...]:
        prompts = self._prompts
        observations: dict[int, Observation] = {}
        for each in context.rounds:
            observations.update(each.observations)
        shown = [task_id for each in context.rounds for task_id in _shown(each)]
        parts, whole = _uses(observations)
        digest = Digest(observations, context.tools, context.question)
        used = [task_id for task_id in shown if task_id in parts]
        ends = [task_id for task_id in shown if task_id not in parts | whole]
        steps = digest.side_by_side(used)
        results = digest.side_by_side(ends)
        asked = self._text(context.question, steps, results)
        system = fill(prompts.joiner, guidelines=bullets(prompts.joiner_guidelines))
        messages = [Message("system", system)]
        for example in prompts.joiner_examples:
            text = self._text(example.question, example.steps, example.results)
            messages.append(Message("user", text))
            decision = {"text": example.text, "action": example.action}
            messages.append(Message("assistant", json.dumps(decision, ensure_ascii=False)))
        messages.append(Message("user", asked + (prompts.final if context.final else "")))
        return tuple(messages)

    def _text(self, question: str, steps: Sequence[str], results: Sequence[str]) -> str:
        """What is asked, the results that matter most right before it."""
        prompts = self._prompts
        if not results:
            return fill(prompts.join_empty, question=question)
        before = fill(prompts.steps, steps=bullets(steps)) if steps else ""
        return fill(prompts.join, steps=before, results=bullets(results), question=question)


def _all_lost(each: PlanRound) -> str:
    """What went wrong, if every result that the plan was after is missing; else nothing."""
    join = each.plan.join
    wanted = (join.on if join is not None else ()) or each.plan.sinks()
    seen = [each.observations[task_id] for task_id in wanted if task_id in each.observations]
    if not seen or any(one.status == "done" for one in seen):
        return ""
    failed = [one for one in each.observations.values() if one.status == "failed" and one.failure]
    return "; ".join(f"{one.task.tool}: {one.failure.message}" for one in failed if one.failure)


def _uses(observations: Mapping[int, Observation]) -> tuple[set[int], set[int]]:
    """Which results calls that succeeded were made of: in part, and only as a whole.

    A call that took records whole, such as ``largest``, speaks for them; shown once more, they only
    draw a small model's eye to what was not chosen.
    """
    parts: set[int] = set()
    whole: set[int] = set()
    for seen in observations.values():
        for ref in seen.task.references():
            if seen.status == "done" and isinstance(ref, Reference):
                value = observations[ref.task].value if ref.task in observations else None
                taken_whole = not ref.path and isinstance(value, dict | list)
                (whole if taken_whole else parts).add(ref.task)
    return parts, whole - parts


def _shown(each: PlanRound) -> tuple[int, ...]:
    """What the plan's join names, and whatever did not succeed; all where it names nothing."""
    join = each.plan.join
    named = {*join.on} if join is not None and join.on else {*each.observations}
    return tuple(
        task_id
        for task_id, seen in each.observations.items()
        if task_id in named or seen.status != "done"
    )


def _schema(actions: tuple[Action, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            # In this order: a small model that must decide first wants more although nothing is
            # missing.
            "text": {"type": "string"},
            "action": {"type": "string", "enum": list(actions)},
        },
        "required": ["text", "action"],
        "additionalProperties": False,
    }


CUT_OFF = " … (cut off: the answer became too long)"

_FENCED = re.compile(r"\A```\w*\n(.*)\n```\Z", re.DOTALL)
_PLAIN = re.compile(r"\A(answer|replan)\s*:\s*(.*)\Z", re.DOTALL | re.IGNORECASE)


def _read(text: str) -> Decision:
    """Read a decision, also of an endpoint that does not hold models to a schema.

    There the whole text is the answer, parentheses, lines and all, unless it says otherwise.
    """
    text = text.strip()
    if fenced := _FENCED.match(text):
        text = fenced[1].strip()
    try:
        data = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and isinstance(data.get("text"), str):
        kind: Action = "replan" if data.get("action") == "replan" else "answer"
        return Decision(kind, data["text"].strip())
    if plain := _PLAIN.match(text):
        kind = "replan" if plain[1].lower() == "replan" else "answer"
        return Decision(kind, plain[2].strip())
    return Decision("answer", text)


def _cut(text: str) -> Decision:
    """What a model had written when it reached the most tokens: an answer, as far as it goes."""
    try:
        data = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        data = None
    if isinstance(data, dict) and isinstance(data.get("text"), str):
        text = data["text"]
    decision = _read(text)
    return dataclasses.replace(decision, text=decision.text and decision.text + CUT_OFF)
