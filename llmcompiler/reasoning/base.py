"""The protocol between reasoning strategies and the executor that runs them.

A strategy decides what to ask, and a ``Branch`` asks the model. The branch makes every model call a
child of its task (``4/0``, ``4/1``, ...). Such calls are recorded piece by piece, limited, cut,
resumed and replayed without any code in the strategy.

How to write a strategy
-----------------------
* **Ask through the branch only**, and decide by what it returns: candidates, ``random``, ``has``.
  Use no clock, no other randomness and no I/O. A replay then makes the same decisions. If calls
  race, let ``race`` decide which calls are cut; do not inspect running calls yourself.
* **Put the longest shared prefix of prompts first**: first what all calls of the branch share
  (instructions, context, problem), then what the calls of a round share (a workspace, drafts of
  others), and last what belongs to one call (its number, its cue). Endpoints cache the prefix of
  a prompt. A word that differs at the beginning makes each call read the whole prompt again.
* **Ask for n samples of one prompt in one ``generate``**: it is one request if the endpoint
  supports that.
* **Start calls that share a prefix together**, by ``generate``, ``generate_each`` or ``start``: if
  the endpoint caches prefixes, the branch sends one call and holds the others back until the
  endpoint has read the prefix.
* **Keep the best result so far**: call ``keep`` whenever there is a better one. If the branch's
  budget ends, ``BudgetReached`` passes through ``run``, and the result kept last is used. Do not
  catch ``BudgetReached``.
* **Mark the accepted path** with ``accept``: the calls on whose text the answer rests, one after
  the other (of a round of parallel drafts, the draft that was used). B_seq counts their tokens.
* **Texts are data**: put them in ``prompts`` and fill them in with ``Branch.prompt``. Users can
  then replace them, and the log holds the texts that were used.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from llmcompiler.errors import LimitReached
from llmcompiler.llm.base import Logprobs, Usage
from llmcompiler.llm.messages import Message
from llmcompiler.llm.workspace import Seat, Workspace, WorkspaceRules

T = TypeVar("T")

Capability: TypeAlias = Literal[
    "n",
    "logprobs",
    "prompt_logprobs",
    "continuation",
    "grammar",
    "prefix_cache",
    "shared_attention",
    "thought_tokens",
]
"""A feature that an endpoint may have.

``n``: several samples for one request; ``logprobs``: log-probabilities of decoded tokens, with
alternatives; ``prompt_logprobs``: log-probabilities of the prompt's tokens; ``continuation``:
continues an answer from a given beginning; ``grammar``: follows a GBNF grammar; ``prefix_cache``:
reads the shared beginning of prompts once; ``shared_attention``: writes several texts at once that
attend to each other; ``thought_tokens``: the model was trained to do so (ParaThinker).
"""

Prompt: TypeAlias = str | Sequence[Message]
"""One user message, or a chat. If its last message is the assistant's, the model continues it."""


class BudgetReached(LimitReached):
    """The branch's own budget is used up; the result kept last becomes the branch's result."""


@dataclass(frozen=True, slots=True)
class BranchBudget:
    """Bounds of one branch, ``None`` for no bound. The first bound that is reached ends the branch.

    Attributes:
        tokens: tokens of all calls, prompts and answers together.
        calls: number of model calls.
        cost: US dollars.
        seconds: time since the branch started, including time spent waiting for the endpoint.
    """

    tokens: int | None = None
    calls: int | None = None
    cost: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """The result of one call, from which a strategy makes its own result.

    Attributes:
        text: what the model wrote; for a call that was cut, what it had written by then. The given
            beginning of a continued message is not part of it.
        answer: the answer in the text; ``None`` for none; see ``answers.extract_answer``.
        finish: ``stop``, ``length``, ``cut``, ``failed``, or the endpoint's own word.
        call: id of the call, such as ``4/0``.
        label: what the strategy called the call.
        usage: tokens of the call; for a call that was cut, each piece counts as one decoded token.
        logprobs: log-probabilities of the decoded tokens, if requested.
    """

    text: str
    answer: str | None
    finish: str
    call: str
    label: str = ""
    usage: Usage = field(default_factory=Usage)
    logprobs: Logprobs | None = None

    @property
    def complete(self) -> bool:
        """True if the model ended the text itself."""
        return self.finish not in ("cut", "length", "failed")


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """The result of a strategy, and of its branch.

    Attributes:
        text: the whole text: the last call's text, or the text of a reducer.
        answer: the answer in the text; ``None`` if it has none.
        candidates: the candidates that it was chosen or made from, best first if they are ordered.
        why: the reason for the choice, in a sentence, such as ``3 of 4 agree``.
        notes: remarks for readers, such as that a fallback was used or a form is training-free.
        data: figures of the strategy, as JSON: rounds, takeovers, votes.
    """

    text: str
    answer: str | None
    candidates: tuple[Candidate, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


class BranchCall(Protocol):
    """A running model call of a branch. Awaiting it gives its ``Candidate``.

    Attributes:
        id: such as ``4/0``.
        label: what the strategy called it.
    """

    id: str
    label: str

    @property
    def text(self) -> str:
        """The text so far."""
        ...

    @property
    def has_ended(self) -> bool:
        """True once the call has ended, in whatever way."""
        ...

    def cut(self) -> None:
        """Stop the call at once and keep its text so far. An ended call stays as it is."""
        ...

    def __await__(self) -> Generator[Any, None, Candidate]: ...


class Branch(Protocol):
    """The interface of a strategy to models. One branch runs one strategy once.

    Attributes:
        problem: the problem to solve.
        context: what is known beforehand, as text; may be empty.
        budget: bounds of the branch.
        seed: seed of ``random`` and of the calls; ``None`` sends no seeds to the endpoint, and
            ``random`` is then seeded with 0.
        random: the only randomness that a strategy may use; draw from it before calls race.
    """

    problem: str
    context: str
    budget: BranchBudget
    seed: int | None
    random: random.Random

    @property
    def usage(self) -> Usage:
        """Tokens of the branch's calls so far."""
        ...

    def has(self, capability: Capability, model: str = "branch") -> bool:
        """True if the endpoint of that model has the capability."""
        ...

    def prompt(self, name: str, **values: object) -> str:
        """Fill in one of the strategy's ``prompts``, or the user's replacement of it."""
        ...

    def answer(self, text: str) -> str | None:
        """Extract the answer from a text in the format that the caller of ``think`` chose."""
        ...

    def start(
        self,
        prompt: Prompt,
        *,
        label: str = "",
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        logprobs: int | None = None,
        schema: Mapping[str, Any] | None = None,
        grammar: str | None = None,
        seat: Seat | None = None,
        model: str = "branch",
    ) -> BranchCall:
        """Start a call without waiting for it.

        Args:
            prompt: one user message or a chat. If its last message is the assistant's, the model
                continues it (needs ``continuation``).
            label: purpose of the call, such as ``draft`` or ``round 2 distil``; views show it.
            max_tokens: most tokens to decode; ``None`` for the branch's default.
            temperature: ``None`` for the branch's default, which is 1 unless the caller set it.
            top_p: ``None`` for the branch's default, which is 1 unless the caller set it.
            stop: texts that end the answer; they are not part of it.
            seed: ``None`` to derive one from the branch's seed, the label and a count.
            logprobs: number of alternatives to report for each token (needs ``logprobs``).
            schema: JSON schema of the answer.
            grammar: GBNF grammar of the answer (needs ``grammar``).
            seat: the call's place in a workspace, whose messages are the ``prompt`` (needs
                ``shared_attention``).
            model: name of one of the branch's models; the strategy runs on ``branch``.

        Raises:
            BudgetReached: the branch's budget allows no further call.
            LimitReached: the run's limits allow no further call.
            UsageError: an unknown model, or a capability that its endpoint lacks.
        """
        ...

    async def generate(
        self, prompt: Prompt, *, n: int = 1, label: str = "", **options: Any
    ) -> list[Candidate]:
        """Take ``n`` samples of one prompt in parallel and wait for all of them.

        One request asks for all samples if the endpoint has the capability ``n``. If the budget
        allows fewer than ``n`` calls, that many are made. Failed calls are left out of the result.

        Args:
            prompt: see ``start``.
            n: number of samples.
            label: see ``start``.
            options: further arguments of ``start``.

        Returns:
            The candidates, in the order of their calls.

        Raises:
            ModelError: all calls failed.
            BudgetReached: the budget allows no call at all.
        """
        ...

    async def generate_each(
        self, prompts: Sequence[Prompt], *, label: str = "", **options: Any
    ) -> list[Candidate]:
        """Make one call for each prompt in parallel; otherwise like ``generate``."""
        ...

    async def race(
        self, calls: Sequence[BranchCall], until: int | Callable[[Sequence[BranchCall]], bool]
    ) -> list[Candidate]:
        """Let started calls run until a condition holds, and cut the others at that moment.

        Args:
            calls: calls that ``start`` returned.
            until: how many calls must have ended by themselves; or a predicate of the calls, tested
                after every piece and every end. The predicate must be a pure function of the calls'
                ``text`` and ``has_ended``.

        Returns:
            A candidate for each call, in the order of ``calls``. A call that was cut has
            ``finish="cut"`` and its text so far.

        Raises:
            ModelError: all calls failed.
        """
        ...

    async def gather(self, *coroutines: Coroutine[Any, Any, T]) -> list[T]:
        """Run several coroutines that make calls; if one fails, the others are cancelled."""
        ...

    def workspace(self, prompt: Prompt, rules: WorkspaceRules) -> Workspace:
        """Make a workspace for calls that see each other's text.

        Start the calls of all its writers together, each with its seat. The workspace is closed
        when the branch ends.
        """
        ...

    async def score(self, prompt: Sequence[Message], *, model: str = "branch") -> Candidate:
        """Have a model score a text.

        Args:
            prompt: a chat whose last message, the assistant's, is scored.
            model: name of one of the branch's models.

        Returns:
            A candidate whose ``logprobs`` are those of the last message's tokens.

        Raises:
            UsageError: the endpoint has no ``prompt_logprobs``.
        """
        ...

    def accept(self, *candidates: Candidate) -> None:
        """Put the calls of candidates on the accepted path; B_seq counts its tokens."""
        ...

    def keep(self, result: StrategyResult) -> None:
        """Keep the best result so far; it becomes the branch's result if the budget ends."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A way to reason with several model calls.

    A strategy is a frozen pydantic model. Its fields are the options that users set (``width=4``);
    they are checked before the first call. One object serves many branches.

    Attributes:
        name: the name by which users choose it.
        needs: capabilities without which it cannot run; an endpoint that lacks one is refused. A
            capability with a substitute (``n``: that many single calls) is not listed.
        prompts: its texts by name, with placeholders in braces; users replace one as ``NAME.text``.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Capability]]
    prompts: ClassVar[Mapping[str, str]]

    def run(self, problem: str, context: str, branch: Branch) -> Awaitable[StrategyResult]:
        """Solve ``problem``, given ``context`` (text, may be empty).

        Raises:
            ModelError: the endpoint failed, and no candidate is left to make a result from.
            BudgetReached: from the branch; do not catch it.
        """
        ...


def context_prefix(context: str) -> str:
    """The context and a blank line, to stand in front of a problem; empty without a context."""
    return f"{context}\n\n" if context else ""
