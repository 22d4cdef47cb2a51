"""Profiles: what a model reads and how it is checked, by how large it is.

A small model imitates examples, gets lost among many numbers, and calculates badly. So it is shown
examples and a digest of the results, and its numbers are checked. A strong model needs none of
that: it is shown every result as it is, and everything that the tools' authors wrote. Whoever
makes a prompt asks the profile, and nothing else asks how large a model is.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.errors import UsageError
from llmcompiler.prompting.prompts import JOINER_FIELDS, Prompts
from llmcompiler.prompting.strong_prompts import STRONG_TEXTS

ProfileName: TypeAlias = Literal["small", "strong"]

LARGEST_SMALL = 4.0
"""Billions of parameters up to which a model counts as small."""

SMALL_CONTEXT = 16_384
"""Tokens of context of a small model, if nothing else is known."""

STRONG_CONTEXT = 128_000
"""Tokens of context of a strong model, if nothing else is known."""

_CONTEXTS: tuple[tuple[str, int], ...] = (
    (r"gpt-3\.5", 16_000),
    (r"gpt-4(?![.o\d])(?!-turbo)", 8_000),
    (r"gpt-4\.1|gemini|llama-?4", 1_000_000),
    (r"gpt-5", 400_000),
    (r"claude|\bo[134](?:-|$)", 200_000),
)
"""Contexts of families of models whose context is not ``STRONG_CONTEXT``."""

_RESULT_SHARES = {"small": 2, "strong": 4}
"""The part of the context that is for results: a half or a quarter, as small contexts are short."""

_MOST_RESULT_TOKENS = 64_000
"""Most tokens of results, however large the context is: every token of a prompt costs money."""

_PARAMETERS = re.compile(r"(?<![a-z\d.])e?(?:\d+x)?(\d+(?:\.\d+)?)([bm])(?![a-z\d])")
_EMBEDDED = ("local", "native")


class Profile(BaseModel):
    """What a model reads, and how its answers are checked.

    Attributes:
        name: ``small`` or ``strong``: the texts of the prompts.
        context_tokens: tokens that the model can read.
        whole_results: show every result as it is, within ``result_tokens``; else show a digest of
            the results that the plan's join names.
        tool_stubs: show tools as Python stubs with all that their authors wrote; else a line for
            each tool, with its first sentences.
        invents_examples: show examples that the user did not write.
        checks_numbers: ask again if a number of the question stands in no call, or a number of the
            answer in no result.
        replans_unasked: plan again without asking the joiner's model, if every result that the plan
            aims at is missing.
        states_date: say which day it is.
        max_tools: a prompt shows all tools if there are at most so many.
        selected_tools: number of tools that are selected from more than ``max_tools``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ProfileName = "small"
    context_tokens: int = Field(default=SMALL_CONTEXT, gt=0)
    whole_results: bool = False
    tool_stubs: bool = False
    invents_examples: bool = True
    checks_numbers: bool = True
    replans_unasked: bool = True
    states_date: bool = False
    max_tools: int = Field(default=40, gt=0)
    selected_tools: int = Field(default=24, gt=0)

    @property
    def result_tokens(self) -> int:
        """Most tokens of the results in one prompt (see ``size.estimate_tokens``)."""
        return min(self.context_tokens // _RESULT_SHARES[self.name], _MOST_RESULT_TOKENS)

    @classmethod
    def small(cls, context_tokens: int | None = None) -> Self:
        """The profile of small models."""
        return cls(context_tokens=context_tokens or SMALL_CONTEXT)

    @classmethod
    def strong(cls, context_tokens: int | None = None) -> Self:
        """The profile of all other models."""
        return cls(
            name="strong",
            context_tokens=context_tokens or STRONG_CONTEXT,
            whole_results=True,
            tool_stubs=True,
            invents_examples=False,
            checks_numbers=False,
            replans_unasked=False,
            states_date=True,
            max_tools=128,
            selected_tools=128,
        )


class ModelWithName(Protocol):
    """A model that says its name, such as a ``ChatModel``."""

    name: str


SMALL = Profile.small()
"""The profile where nothing is said of a model."""


class Profiles(BaseModel):
    """The profiles of a run's models.

    Attributes:
        planner: of the model that writes plans.
        joiner: of the model that answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    planner: Profile = Profile()
    joiner: Profile = Profile()

    def complete_prompts(self, prompts: Prompts) -> Prompts:
        """The user's texts, and the profiles' own where the user set none."""
        texts = {
            field: text
            for field, text in STRONG_TEXTS.items()
            if field not in prompts.model_fields_set
            and (self.joiner if field in JOINER_FIELDS else self.planner).name == "strong"
        }
        return prompts.model_copy(update=texts) if texts else prompts


def profile_for(model: str, name: str | None = None, context_tokens: int | None = None) -> Profile:
    """The profile of a model.

    A model is small if its name says that it has at most ``LARGEST_SMALL`` billion parameters, or
    if it runs in this process and its name gives no number. Every other model is strong.

    Args:
        model: its name, such as ``local:qwen2.5-coder-1.5b`` or ``openai:gpt-5``.
        name: ``small`` or ``strong``; ``None`` or ``auto`` to go by the model's name.
        context_tokens: tokens that the model can read; ``None`` to go by its name.

    Raises:
        UsageError: there is no such profile.
    """
    if name in (None, "auto"):
        name = "small" if _is_small(model) else "strong"
    if name == "small":
        return Profile.small(context_tokens)
    if name == "strong":
        return Profile.strong(context_tokens or _context_of(model))
    raise UsageError(f'there is no profile "{name}"', hint="small, strong or auto")


def profiles_for(
    planner_model: str | ModelWithName,
    joiner_model: str | ModelWithName,
    profile: str | Profile | Profiles | None = None,
    context_tokens: int | None = None,
) -> Profiles:
    """The profiles of a run's models.

    Args:
        planner_model: the model that writes plans, or its name.
        joiner_model: the model that answers, or its name.
        profile: a profile for both, or its name; ``None`` or ``auto`` to go by the models' names.
        context_tokens: tokens that the models can read; ``None`` to go by their names.

    Raises:
        UsageError: there is no such profile, or no model can read so few tokens.
    """
    if context_tokens is not None and context_tokens < 1:
        raise UsageError(
            f"context_tokens is {context_tokens}", hint="a number of tokens, 1 or more"
        )
    if isinstance(profile, Profiles):
        return profile
    if isinstance(profile, Profile):
        return Profiles(planner=profile, joiner=profile)
    planner, joiner = (
        profile_for(
            model if isinstance(model, str) else getattr(model, "name", ""), profile, context_tokens
        )
        for model in (planner_model, joiner_model)
    )
    return Profiles(planner=planner, joiner=joiner)


def _is_small(model: str) -> bool:
    sizes = [
        float(number) / (1000 if unit == "m" else 1)
        for number, unit in _PARAMETERS.findall(model.lower())
    ]
    if sizes:
        return max(sizes) <= LARGEST_SMALL
    return model.partition(":")[0] in _EMBEDDED


def _context_of(model: str) -> int:
    name = model.lower()
    return next(
        (tokens for pattern, tokens in _CONTEXTS if re.search(pattern, name)), STRONG_CONTEXT
    )
