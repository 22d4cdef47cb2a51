"""What an endpoint can do for one model: stated by the caller, remembered, or found by a trial.

Servers differ and do not say what they can do: llama.cpp takes GBNF as ``grammar``, vLLM takes it
as ``structured_outputs`` and earlier took it as ``guided_grammar``; others refuse such fields or,
worse, ignore them. So each ability has a trial, a short request whose answer shows the ability. For
grammars the trial allows one odd word only: a model that says the word obeys grammars.

``EndpointCapabilities`` is the one place that knows. It remembers what the trials showed for the
life of the process, and on disk for endpoints of other machines; a server on this machine may be
another one tomorrow. It also keeps the optional fields that the endpoint has refused in an answer
to a real request.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Request
from llmcompiler.llm.messages import Function, Message
from llmcompiler.llm.thinking import split_thinking

Constraint: TypeAlias = Literal[
    "grammar", "structured_outputs", "guided_grammar", "json_schema", "none"
]
"""The request field that holds an answer to a constraint.

The first three take a GBNF grammar, ``json_schema`` takes a schema only, ``none`` takes nothing.
"""

SampleRequest: TypeAlias = Callable[[Request, Collection[str]], Awaitable[Sequence[Completion]]]
"""Sends a request to the endpoint and returns the completions of all its samples.

The names are those of optional fields that the request cannot do without.
"""

MEMORY_S = 30 * 24 * 3600.0
"""Seconds after which an endpoint is tried again."""

_PATIENT_TOKENS = 4096
"""Most tokens of a trial that is repeated because the model spent the first one on thinking."""

_TRIAL_TIMEOUT_S = 20.0
"""Seconds for one trial; an endpoint that stalls is not tried again in that call."""

_PATIENT_TIMEOUT_S = 120.0
"""Seconds for a trial in which the model may think."""

_WORD = "zyzzyva"
_GRAMMAR = f'root ::= "{_WORD}"'
_SCHEMA = {
    "type": "object",
    "properties": {"word": {"const": _WORD}},
    "required": ["word"],
    "additionalProperties": False,
}
_SAY_HELLO = (Message("user", "Say hello."),)
_HELLO_FUNCTION = Function(
    "say_hello", "Say hello.", {"type": "object", "properties": {"name": {"type": "string"}}}
)

# The models of these hosts take schemas, never grammars, and call functions.
_KNOWN_CONSTRAINTS: dict[str, Constraint] = {"api.openai.com": "json_schema"}

# The two values of an ability in the file: the endpoint has it, the endpoint lacks it.
_YES_NO = ("yes", "no")
_FUNCTIONS_YES_NO = ("functions", "no functions")


@dataclass(frozen=True, slots=True)
class _Trial:
    """A request whose answer shows an ability.

    Attributes:
        request: the request.
        succeeds: True if the completions (one a sample) of the last answer show the ability.
        times: how often the request is sent.
        field: the optional field that the trial is about; empty if there is none.
    """

    request: Request
    succeeds: Callable[[Sequence[Completion]], bool]
    times: int = 1
    field: str = ""


_TRIALS: dict[str, _Trial] = {
    "logprobs": _Trial(
        Request(_SAY_HELLO, max_tokens=1, logprobs=1),
        lambda samples: samples[-1].logprobs is not None and bool(samples[-1].logprobs.chosen),
        field="logprobs",
    ),
    "continuation": _Trial(
        Request(
            (Message("user", "Count from 1 to 9."), Message("assistant", "1, 2, 3, 4, 5, 6,")),
            max_tokens=4,
        ),
        lambda samples: samples[-1].text.lstrip(" ,").startswith("7"),
    ),
    # The prompt is long because endpoints cache whole blocks only, of up to a thousand tokens.
    "prefix_cache": _Trial(
        Request((Message("user", "Say hello. " + "Be brief and friendly. " * 250),), max_tokens=1),
        lambda samples: samples[-1].usage.cached_tokens > 0,
        times=2,
    ),
    # llama.cpp's server gives two samples but counts the tokens of one. Such a server is asked for
    # one sample a request, so that its tokens are counted.
    "n": _Trial(
        Request(_SAY_HELLO, max_tokens=1, temperature=1.0, extra={"n": 2}),
        lambda samples: (
            len(samples) == 2 and sum(sample.usage.completion_tokens for sample in samples) >= 2
        ),
        field="n",
    ),
}

# Left to itself, a model may prefer to answer; and not every server can force a call.
_FUNCTIONS_TRIAL = _Trial(
    Request(
        (Message("user", "Say hello to Ann with the function."),),
        max_tokens=64,
        functions=(_HELLO_FUNCTION,),
        extra={"tool_choice": "required"},
    ),
    lambda samples: bool(samples[-1].calls),
)


def takes_grammar(constraint: Constraint) -> bool:
    """True if the endpoint holds models to grammars."""
    return constraint not in ("json_schema", "none")


def grammar_fields(constraint: Constraint, grammar: str) -> dict[str, Any]:
    """The request fields that hold an answer to ``grammar``; none where ``constraint`` cannot."""
    match constraint:
        case "grammar":
            return {"grammar": grammar}
        case "structured_outputs":
            return {"structured_outputs": {"grammar": grammar}}
        case "guided_grammar":
            return {"guided_grammar": grammar}
    return {}


class _EndpointUnavailable(Exception):
    """The endpoint cannot be tried now; nothing is remembered, and a later call tries again."""


class EndpointCapabilities:
    """What one endpoint can do for one model.

    Each answer comes from the first of these that has it: the caller's statement, this process's
    memory, the file of earlier processes, a trial of a few tokens.

    Args:
        base_url: the endpoint.
        model: the model's name there.
        send: sends the requests of trials.
        constraint: the caller's statement about constraints; ``None`` to find out.
        abilities: the caller's statement about all other abilities but functions; likewise.
        functions: the caller's statement about function calling; likewise.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        send: SampleRequest,
        *,
        constraint: Constraint | None = None,
        abilities: frozenset[str] | None = None,
        functions: bool | None = None,
    ) -> None:
        self._host = urlsplit(base_url).hostname or ""
        self._key = f"{_without_credentials(base_url)} {model}"
        self._send = send
        self._constraint = constraint
        self._abilities = abilities
        self._functions = functions
        self._refused_fields: set[str] = set()

    async def constraint(self) -> Constraint:
        """The field that takes constraints; ``none`` also where no trial can be run now."""
        if self._constraint is not None:
            return self._constraint
        if self._host in _KNOWN_CONSTRAINTS:
            return _KNOWN_CONSTRAINTS[self._host]
        value = await self._find_out("", get_args(Constraint), self._try_constraints)
        return cast(Constraint, value or "none")

    async def functions(self) -> bool | None:
        """Whether the model can call functions; ``None`` where the endpoint cannot be tried now."""
        if self._functions is None:
            if self._host in _KNOWN_CONSTRAINTS:
                self._functions = True
            else:
                self._functions = await self._has(
                    "functions", _FUNCTIONS_TRIAL, values=_FUNCTIONS_YES_NO
                )
        return self._functions

    async def abilities(self) -> frozenset[str]:
        """The abilities that are stated or were seen to work (names of ``reasoning.Capability``).

        Where the endpoint cannot be tried now, the ability is missing here and is tried again by
        the next call.
        """
        if self._abilities is not None:
            return self._abilities
        abilities = set()
        for name, trial in _TRIALS.items():
            has_ability = await self._has(name, trial)
            if has_ability is None:
                break
            if has_ability:
                abilities.add(name)
        if takes_grammar(await self.constraint()):
            abilities.add("grammar")
        return frozenset(abilities)

    def refused_fields(self) -> frozenset[str]:
        """Names of the optional fields that the endpoint refuses, as far as that was found out."""
        known = _recall(f"{self._key} refused", self._host)
        return frozenset(self._refused_fields).union((known or "").split())

    def remember_refused(self, names: Collection[str]) -> None:
        """Send no more requests with these optional fields, because the endpoint refuses them."""
        if not set(names) <= self._refused_fields:
            self._refused_fields |= self.refused_fields().union(names)
            _remember(f"{self._key} refused", self._host, " ".join(sorted(self._refused_fields)))

    async def _has(
        self, ability: str, trial: _Trial, values: tuple[str, str] = _YES_NO
    ) -> bool | None:
        yes, no = values

        async def run_trial() -> str:
            return yes if await self._succeeds(trial) else no

        value = await self._find_out(ability, values, run_trial)
        return None if value is None else value == yes

    async def _find_out(
        self, ability: str, values: Collection[str], run_trial: Callable[[], Awaitable[str]]
    ) -> str | None:
        """The remembered value, else the trial's; ``None`` where the endpoint cannot be tried."""
        key = f"{self._key} {ability}".rstrip()
        value = _recall(key, self._host, values)
        if value is None:
            try:
                value = await run_trial()
            except _EndpointUnavailable:
                return None
            _remember(key, self._host, value)
        return value

    async def _try_constraints(self) -> str:
        for constraint in get_args(Constraint):
            if constraint == "none":
                break
            request = Request(_SAY_HELLO, max_tokens=16, extra=grammar_fields(constraint, _GRAMMAR))
            field = constraint
            if constraint == "json_schema":
                request = Request(_SAY_HELLO, max_tokens=32, schema=_SCHEMA)
                field = "response_format"
            if await self._succeeds(_Trial(request, _says_word, field=field)):
                return str(constraint)
        return "none"

    async def _succeeds(self, trial: _Trial) -> bool:
        """Run a trial, again with more tokens if the model has spent the first ones on thinking."""
        samples = await self._samples(trial, trial.request, _TRIAL_TIMEOUT_S)
        if samples and not trial.succeeds(samples) and any(map(_was_thinking, samples)):
            patient = dataclasses.replace(trial.request, max_tokens=_PATIENT_TOKENS)
            samples = await self._samples(trial, patient, _PATIENT_TIMEOUT_S)
        return bool(samples) and trial.succeeds(samples)

    async def _samples(self, trial: _Trial, request: Request, seconds: float) -> list[Completion]:
        """The samples of the last answer; none where the endpoint refuses the request.

        Raises:
            _EndpointUnavailable: the endpoint stalls, or fails in a way that may pass.
        """
        samples: Sequence[Completion] = ()
        try:
            async with asyncio.timeout(seconds):
                for _ in range(trial.times):
                    samples = await self._send(request, (trial.field,))
        except TimeoutError as error:
            raise _EndpointUnavailable from error
        except ModelError as error:
            if error.retryable:
                raise _EndpointUnavailable from error
            return []
        return [
            dataclasses.replace(sample, text=split_thinking(sample.text).answer)
            for sample in samples
        ]


def _says_word(samples: Sequence[Completion]) -> bool:
    return _WORD in samples[-1].text


def _was_thinking(sample: Completion) -> bool:
    """True if a sample, without its thoughts, ended at its bound before it said anything."""
    return sample.finish == "length" and not sample.text.strip() and not sample.calls


async def capabilities_of(model: ChatModel) -> frozenset[str]:
    """What any model can do beyond answering (names of ``reasoning.Capability``).

    A model states it by an async method ``capabilities``; a model without the method can answer
    only. A model that states ``prompt_logprobs`` gives, for a request whose ``extra`` asks for
    them, the log-probabilities of the request's last message.
    """
    method = getattr(model, "capabilities", None)
    return frozenset() if method is None else frozenset(await method())


# --- memory: this process's, and a file for endpoints of other machines ---------------------------

_memory: dict[str, str] = {}


def _recall(key: str, host: str, values: Collection[str] = ()) -> str | None:
    """The value from this process or an earlier one; a value not of ``values`` does not count."""
    if key not in _memory and not _is_local(host):
        stored = _read_file().get(key)
        if stored is not None and (stored in values or not values):
            _memory[key] = stored
    return _memory.get(key)


def _remember(key: str, host: str, value: str) -> None:
    _memory[key] = value
    if not _is_local(host):
        _write_file(key, value)


def _without_credentials(base_url: str) -> str:
    """The address without a name and password in it."""
    url = urlsplit(base_url)
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl().rstrip("/")


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "")


def _file() -> Path:
    from llmcompiler.llm.weights import cache_dir

    return cache_dir() / "constraints.json"


def _read_file() -> Mapping[str, str]:
    """The entries on disk that are still fresh; none where the file cannot be read."""
    try:
        entries = json.loads(_file().read_text(encoding="utf-8"))
        return {
            key: str(entry["constraint"])
            for key, entry in entries.items()
            if time.time() - entry["at"] < MEMORY_S
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write_file(key: str, value: str) -> None:
    """Add an entry; where the file cannot be written, the next process runs the trial again."""
    values = {**_read_file(), key: value}
    entries = {name: {"constraint": value, "at": time.time()} for name, value in values.items()}
    file = _file()
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(entries, indent=1), encoding="utf-8")
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
