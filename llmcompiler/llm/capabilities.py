"""What an endpoint can do for a model, found out by trying it once.

Servers differ and do not say: llama.cpp takes GBNF as ``grammar``, vLLM as ``structured_outputs``
and before as ``guided_grammar``, others refuse such fields or, worse, ignore them. So a model is
asked to say hello under a grammar that allows one odd word only; who says that word obeys grammars.
In the same way it is asked for log-probabilities, for two samples of one request, to continue a
beginning, and the same long prompt twice, and it is told to call a function that it is given; who
calls it has function calling. What was found is kept for the process, and on disk for endpoints
that other machines run; a server on this machine may be another one tomorrow. The module must not
know what grammars are for.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Request
from llmcompiler.llm.messages import Function, Message

Constraint: TypeAlias = Literal[
    "grammar", "structured_outputs", "guided_grammar", "json_schema", "none"
]
"""The field that takes a constraint; ``json_schema`` and ``none`` hold to no grammar."""

Answer: TypeAlias = Callable[[Request], Awaitable[Completion]]
"""Asks the endpoint once."""

KEPT_S = 30 * 24 * 3600.0
"""Seconds after which an endpoint is asked again."""

_PATIENCE_S = 20.0
"""Seconds for one trial; an endpoint that stalls is left alone until the next process."""

_WORD = "zyzzyva"
_GRAMMAR = f'root ::= "{_WORD}"'
_SCHEMA = {
    "type": "object",
    "properties": {"word": {"const": _WORD}},
    "required": ["word"],
    "additionalProperties": False,
}
# Their models are held to schemas, never to grammars, and call functions.
_KNOWN: dict[str, Constraint] = {"api.openai.com": "json_schema"}

_HELLO = Function(
    "say_hello", "Say hello.", {"type": "object", "properties": {"name": {"type": "string"}}}
)
_FUNCTIONS = ("functions", "no functions")

# What is asked, how often, and how the last answer shows that the endpoint can do it.
_TRIALS: dict[str, tuple[Request, int, Callable[[Completion], bool]]] = {
    "logprobs": (
        Request((Message("user", "Say hello."),), max_tokens=1, logprobs=1),
        1,
        lambda said: said.logprobs is not None and bool(said.logprobs.chosen),
    ),
    "continuation": (
        Request(
            (Message("user", "Count from 1 to 9."), Message("assistant", "1, 2, 3, 4, 5, 6,")),
            max_tokens=4,
        ),
        1,
        lambda said: said.text.lstrip(" ,").startswith("7"),
    ),
    # Endpoints keep whole blocks only, of up to a thousand tokens.
    "prefix_cache": (
        Request((Message("user", "Say hello. " + "Be brief and friendly. " * 250),), max_tokens=1),
        2,
        lambda said: said.usage.cached_tokens > 0,
    ),
}

_found: dict[str, str] = {}


def grammar_fields(constraint: Constraint, grammar: str) -> dict[str, Any]:
    """The request's fields that hold a model to ``grammar``; none where that cannot be done."""
    match constraint:
        case "grammar":
            return {"grammar": grammar}
        case "structured_outputs":
            return {"structured_outputs": {"grammar": grammar}}
        case "guided_grammar":
            return {"guided_grammar": grammar}
    return {}


async def find_constraint(base_url: str, model: str, answer: Answer) -> Constraint:
    """What the endpoint holds this model to.

    Args:
        base_url: the endpoint.
        model: the model's name there.
        answer: asks it; called a few times for a few tokens, unless the answer is known.

    Returns:
        The constraint; ``none`` also where the endpoint cannot be asked now, and then nothing is
        remembered.
    """
    key = f"{_plain(base_url)} {model}"
    host = urlsplit(base_url).hostname or ""
    found = _KNOWN.get(host) or _kept(key, host, get_args(Constraint))
    if found is None:
        found = await _try_all(answer)
        if found is None:
            return "none"
        _keep(key, host, found)
    return cast(Constraint, found)


async def find_functions(base_url: str, model: str, answer: Answer) -> bool | None:
    """Whether the endpoint lets this model call functions.

    Args:
        base_url: the endpoint.
        model: the model's name there.
        answer: asks it; called once for a few tokens, unless the answer is known.

    Returns:
        ``None`` where the endpoint cannot be asked now, and then nothing is remembered.
    """
    key = f"{_plain(base_url)} {model} functions"
    host = urlsplit(base_url).hostname or ""
    found = _FUNCTIONS[0] if host in _KNOWN else _kept(key, host, _FUNCTIONS)
    if found is None:
        request = Request(
            (Message("user", "Say hello to Ann with the function."),),
            max_tokens=64,
            functions=(_HELLO,),
            # Left to itself, a model may prefer to answer; and not every server can force it.
            extra={"tool_choice": "required"},
        )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                found = _FUNCTIONS[0 if (await answer(request)).calls else 1]
        except TimeoutError:
            return None
        except ModelError as error:
            if error.retryable:
                return None
            found = _FUNCTIONS[1]
        _keep(key, host, found)
    return found == _FUNCTIONS[0]


async def find_abilities(base_url: str, model: str, answer: Answer) -> frozenset[str]:
    """What else the endpoint can do for this model.

    Args:
        base_url: the endpoint.
        model: the model's name there.
        answer: asks it; called a few times for a few tokens, unless the answers are known.

    Returns:
        Those of ``logprobs``, ``continuation`` and ``prefix_cache`` that were seen to work. Where
        the endpoint cannot be asked now, it is asked again the next time.
    """
    found: set[str] = set()
    for ability, (request, times, shows) in _TRIALS.items():

        async def trial(
            request: Request = request,
            times: int = times,
            shows: Callable[[Completion], bool] = shows,
        ) -> bool:
            said = await answer(request)
            for _ in range(times - 1):
                said = await answer(request)
            return shows(said)

        can = await find_ability(base_url, model, ability, trial)
        if can is None:
            break
        if can:
            found.add(ability)
    return frozenset(found)


async def find_ability(
    base_url: str, model: str, ability: str, trial: Callable[[], Awaitable[bool]]
) -> bool | None:
    """Whether the endpoint can do one thing for this model.

    Args:
        base_url: the endpoint.
        model: the model's name there.
        ability: what it is called.
        trial: tries it and says whether it worked; not called if that is known.

    Returns:
        ``None`` where the endpoint cannot be asked now, and then nothing is remembered.
    """
    key = f"{_plain(base_url)} {model} {ability}"
    host = urlsplit(base_url).hostname or ""
    kept = _kept(key, host, ("yes", "no"))
    if kept is None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                kept = "yes" if await trial() else "no"
        except TimeoutError:
            return None
        except ModelError as error:
            if error.retryable:
                return None
            kept = "no"
        _keep(key, host, kept)
    return kept == "yes"


async def _try_all(answer: Answer) -> Constraint | None:
    asked = (Message("user", "Say hello."),)
    for constraint in get_args(Constraint):
        request = Request(asked, max_tokens=16, extra=grammar_fields(constraint, _GRAMMAR))
        if constraint == "json_schema":
            request = Request(asked, max_tokens=32, schema=_SCHEMA)
        elif constraint == "none":
            break
        try:
            async with asyncio.timeout(_PATIENCE_S):
                text = (await answer(request)).text
        except TimeoutError:
            return None
        except ModelError as error:
            if error.retryable:
                return None
            continue
        if _WORD in text:
            found: Constraint = constraint
            return found
    return "none"


def _plain(base_url: str) -> str:
    """The address without a name and password in it."""
    url = urlsplit(base_url)
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl().rstrip("/")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "")


def _kept(key: str, host: str, possible: Collection[str]) -> str | None:
    """What is known of an endpoint, from this process or an earlier one."""
    if key not in _found and not _is_here(host):
        stored = _read().get(key)
        if stored is not None and stored in possible:
            _found[key] = stored
    return _found.get(key)


def _keep(key: str, host: str, found: str) -> None:
    _found[key] = found
    if not _is_here(host):
        _write(key, found)


def _file() -> Path:
    from llmcompiler.llm.weights import cache_dir

    return cache_dir() / "constraints.json"


def _read() -> Mapping[str, str]:
    """What is on disk and still fresh; a file that cannot be read is as good as none."""
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
        return {
            key: str(kept["constraint"])
            for key, kept in data.items()
            if time.time() - kept["at"] < KEPT_S
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(key: str, constraint: str) -> None:
    """Keep it; a cache that cannot be written costs a few tokens the next time, no more."""
    data = {name: {"constraint": kept, "at": time.time()} for name, kept in _read().items()}
    data[key] = {"constraint": constraint, "at": time.time()}
    file = _file()
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(data, indent=1), encoding="utf-8")
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)


async def capabilities_of(model: ChatModel) -> frozenset[str]:
    """What a model can do beyond answering, as far as it says; see ``reasoning.Capability``.

    A model says so by an async method ``capabilities``; one without can answer, and no more. One
    that says ``prompt_logprobs`` gives, for a request whose ``extra`` asks for them, those of its
    last message.
    """
    say = getattr(model, "capabilities", None)
    return frozenset() if say is None else frozenset(await say())
