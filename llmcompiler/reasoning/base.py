"""The protocol between reasoning strategies and the frame that runs them.

A strategy decides what to ask; a ``Branch`` asks it. Through the branch every model call is a child
task of the branch's task (``4/0``, ``4/1``, ...): recorded piece by piece, limited, cut short,
resumed and replayed like anything else in a run, without the strategy's doing. The module must not
know any strategy, model or log.

How to write one
----------------
* **Ask through the branch only**, and decide by what it gave: its candidates, ``random``, ``has``.
  No clock, no other randomness, no I/O. Then a replay comes to the same decisions. Where calls
  race, let ``race`` decide who is cut, not a look at the calls in between.
* **Lay prompts out with the longest shared prefix first**: what all calls of the branch share
  (instructions, context, problem), then what calls of a round share (a workspace, others' drafts),
  and what is a call's own (its number, its cue) last. Endpoints keep what they have read of a
  prompt; a word of one's own at the beginning makes every call read everything again. Nothing that
  changes between calls (a number, a date) belongs in front of what does not.
* **Ask for n samples of one prompt in one ``generate``**: it is one request where the endpoint can.
* **Start calls that share a prompt's beginning together**, by ``generate``, ``each`` or ``start``:
  where the endpoint keeps prefixes, the frame sends one and the rest when it has been read.
* **Keep what you have**: call ``keep`` whenever there is an outcome that beats none. If the
  branch's budget ends, ``BudgetReached`` passes through ``run``, and what was kept is the result.
  Do not catch it.
* **Mark the accepted path** with ``accept``: the calls whose text the answer stands on, one after
  the other (of a round of parallel drafts, the one that was taken up). From these follows B_seq.
* **Texts are data**: put them in ``prompts`` and fill them with ``Branch.prompt``, so that users
  can replace them and the log holds those that were used.
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
"""What an endpoint may be able to do.

``n``: several samples of one request; ``logprobs``: of decoded tokens, with alternatives;
``prompt_logprobs``: of given tokens; ``continuation``: goes on from a beginning of its answer;
``grammar``: holds to a GBNF grammar; ``prefix_cache``: does not read a prompt's beginning twice;
``shared_attention``: writes several texts at once that see each other; ``thought_tokens``: was
trained to do so (ParaThinker).
"""

Prompt: TypeAlias = str | Sequence[Message]
"""What a model is asked: one user message, or a chat; a last assistant message is continued."""


class BudgetReached(LimitReached):
    """The branch's own budget is used up; the frame turns what was kept into its result."""


@dataclass(frozen=True, slots=True)
class BranchBudget:
    """What one branch may use; ``None`` for no bound. What reaches it first ends the branch.

    Attributes:
        tokens: of all its calls, prompts and answers together.
        calls: model calls.
        cost: US dollars.
        seconds: from its beginning, waiting for a turn at the endpoint included.
    """

    tokens: int | None = None
    calls: int | None = None
    cost: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What became of one call.

    Attributes:
        text: what the model wrote; of a call that was cut, as far as it came. For a continued
            message, without the given beginning.
        answer: the answer in it, as ``answers.extract`` finds it; ``None`` where there is none.
        finish: ``stop``, ``length``, ``cut``, ``failed``, or the endpoint's word.
        call: the call's id, such as ``4/0``.
        label: what the strategy called it.
        usage: its tokens; of a call that was cut, the decoded ones are counted in pieces.
        logprobs: of its tokens, where they were asked for.
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
        """Whether the model came to an end of its own."""
        return self.finish not in ("cut", "length", "failed")


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """What a strategy came to.

    Attributes:
        text: the whole of it: the last call's text, or what a reducer made.
        answer: the answer in it; ``None`` where none was found.
        candidates: what it was chosen from or made of, best first where there is an order.
        why: how it was decided, in a sentence, such as ``3 of 4 agree``.
        notes: what readers should know: that a fallback was taken, that a form is training-free.
        data: the strategy's own figures, JSON: rounds, takeovers, votes.
    """

    text: str
    answer: str | None
    candidates: tuple[Candidate, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


class BranchCall(Protocol):
    """A model call that is going on. Awaiting it gives its ``Candidate``.

    Attributes:
        id: ``4/0``.
        label: what the strategy called it.
    """

    id: str
    label: str

    @property
    def text(self) -> str:
        """What has come so far."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether it has come to its end, whatever that is."""
        ...

    def cut(self) -> None:
        """Stop reading, at once; what has come stays. Nothing happens to a call that has ended."""
        ...

    def __await__(self) -> Generator[Any, None, Candidate]: ...


class Branch(Protocol):
    """What a strategy may use. One branch runs one strategy once.

    Attributes:
        problem: what is asked.
        context: what is known beforehand, as text; empty where there is nothing.
        budget: what the branch may use.
        seed: from which ``random`` and the calls' seeds are drawn; ``None`` leaves sampling to
            the endpoint (``random`` is then seeded with 0).
        random: the only randomness that a strategy may use; draw before calls race.
    """

    problem: str
    context: str
    budget: BranchBudget
    seed: int | None
    random: random.Random

    @property
    def usage(self) -> Usage:
        """What the branch's calls have used so far."""
        ...

    def has(self, capability: Capability, model: str = "branch") -> bool:
        """Whether the endpoint of that model can do this; ask before the first call."""
        ...

    def prompt(self, name: str, **values: object) -> str:
        """One of the strategy's ``prompts``, or what the user put in its place, filled in."""
        ...

    def answer(self, text: str) -> str | None:
        """The answer in a text, by the way of extraction that the caller asked for."""
        ...

    def start(
        self,
        ask: Prompt,
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
        """Start a call and go on.

        Args:
            ask: one user message or a chat. If its last message is the assistant's, the model
                continues it (needs ``continuation``).
            label: what the call is for, such as ``draft`` or ``round 2 distil``; views show it.
            max_tokens: most to decode; ``None`` for the caller's, or the endpoint's.
            temperature: ``None`` for the caller's, by default 1.
            top_p: ``None`` for the caller's, by default 1.
            stop: texts that end the answer and are left out of it.
            seed: ``None`` for one of its own, derived from the branch's, the label and a count.
            logprobs: how many alternatives a token to report (needs ``logprobs``).
            schema: JSON schema that the answer must fit.
            grammar: GBNF grammar that it must fit (needs ``grammar``).
            seat: where it writes, of a workspace whose messages ``ask`` is (needs
                ``shared_attention``).
            model: which of the branch's models; ``branch`` is the one that it runs on.

        Raises:
            BudgetReached: the branch's budget allows no further call.
            LimitReached: the run's limits allow none.
            UsageError: a model that there is not, or something that its endpoint cannot do.
        """
        ...

    async def generate(
        self, ask: Prompt, *, n: int = 1, label: str = "", **options: Any
    ) -> list[Candidate]:
        """``n`` samples of one prompt, at once, and wait for all; in the order of their calls.

        Options are those of ``start``. Where the endpoint takes ``n``, one request asks for all of
        them. If the budget allows fewer than ``n``, as many are taken as it allows. A call that
        fails is left out as long as one does not.

        Raises:
            ModelError: all of them failed.
            BudgetReached: not even one is allowed.
        """
        ...

    async def generate_each(
        self, asks: Sequence[Prompt], *, label: str = "", **options: Any
    ) -> list[Candidate]:
        """One call for each of several prompts, at once; as ``generate`` otherwise."""
        ...

    async def race(
        self, calls: Sequence[BranchCall], until: int | Callable[[Sequence[BranchCall]], bool]
    ) -> list[Candidate]:
        """Let started calls run until enough is there, cut the rest at that very moment.

        Args:
            calls: as ``start`` gave them.
            until: so many have come to an end of their own; or a test of the calls, asked at every
                piece and every end. It must be a pure function of their ``text`` and ``ended``.

        Returns:
            A candidate for each call, in the given order; those that were cut have the text that
            had come (``finish`` is ``cut``).

        Raises:
            ModelError: all of them failed.
        """
        ...

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        """Run several courses of calls at once; if one fails, the others are cancelled."""
        ...

    def workspace(self, ask: Prompt, rules: WorkspaceRules) -> Workspace:
        """A workspace for calls that see each other; nobody has it when the branch has ended.

        Its writers' calls have to be started all together, each with its seat.
        """
        ...

    async def score(self, ask: Sequence[Message], *, model: str = "branch") -> Candidate:
        """What a model makes of a given text: log-probabilities of the last message's tokens.

        The last message is the assistant's. The result's ``logprobs`` are those of its tokens.

        Raises:
            UsageError: the endpoint has no ``prompt_logprobs``.
        """
        ...

    def accept(self, *candidates: Candidate) -> None:
        """Put calls on the accepted path, whose tokens are B_seq."""
        ...

    def keep(self, outcome: StrategyResult) -> None:
        """Note the best outcome so far; it is the result if the budget ends now."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A way to reason with several calls.

    A strategy is a frozen pydantic model: its fields are the options that users set
    (``width=4``), checked before anything is asked. One object serves many branches.

    Attributes:
        name: how users call it.
        needs: what it cannot do without; an endpoint that lacks it is refused by name. What has an
            equivalent (``n``: as many single calls) is no need.
        prompts: its texts by name, placeholders in braces; users replace them as ``NAME.text``.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Capability]]
    prompts: ClassVar[Mapping[str, str]]

    def run(self, problem: str, context: str, branch: Branch) -> Awaitable[StrategyResult]:
        """Reason about ``problem``, knowing ``context`` (text, may be empty).

        Raises:
            ModelError: the endpoint failed, and nothing is left to make an outcome of.
            BudgetReached: from the branch; let it pass.
        """
        ...
