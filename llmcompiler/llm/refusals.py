"""Which optional field of a request an endpoint refuses, and the request without that field.

Endpoints refuse fields with many statuses and in many words: with OpenAI's ``param``, with the
``loc`` of a validator, in a sentence, in plain text, inside an answer of status 200. So the one
table below says, for each field that a request can do without, how servers name it and what the
request is without it. If an error names no field, the fields are left out one by one in the order
of the table.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.llm.surrogates import join_surrogates

Payload: TypeAlias = dict[str, Any]
"""The JSON body of a request."""

MAX_DESCRIPTION = 1024
"""Most characters that some endpoints take as the description of a function."""

_MAX_SCHEMA = 4_000
"""Most characters of a schema that is shown to the model in place of ``response_format``."""


def _without(*names: str) -> Callable[[Payload], None]:
    def remove(payload: Payload) -> None:
        for name in names:
            payload.pop(name, None)

    return remove


def _rename_bound(payload: Payload) -> None:
    if "max_tokens" in payload:
        payload["max_completion_tokens"] = payload.pop("max_tokens")


def _without_strict(payload: Payload) -> None:
    schema = payload.get("response_format", {}).get("json_schema", {})
    if schema.get("strict"):
        schema["strict"] = False
    for function in _functions(payload):
        function.pop("strict", None)


def _without_schema(payload: Payload) -> None:
    form = payload.pop("response_format", None)
    if form is None:
        return
    schema = json.dumps(form.get("json_schema", {}).get("schema"), ensure_ascii=False)
    last = payload["messages"][-1]
    # Where nothing holds the model to the schema, only the words can.
    if last["role"] == "user" and isinstance(last["content"], str) and len(schema) <= _MAX_SCHEMA:
        last["content"] += f"\n\nAnswer with JSON of this schema, and nothing else:\n{schema}"


def _shorten_descriptions(payload: Payload) -> None:
    for function in _functions(payload):
        if len(function.get("description", "")) > MAX_DESCRIPTION:
            function["description"] = function["description"][: MAX_DESCRIPTION - 2] + " …"


_PLAIN_KEYWORDS = ("type", "description", "enum", "required", "items", "properties", "anyOf")


def _simplify_parameters(payload: Payload) -> None:
    for function in _functions(payload):
        schema = function.get("parameters")
        if isinstance(schema, dict):
            function["parameters"] = _plain_schema(schema, schema, 0)


def _plain_schema(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    """The schema with the keywords that every endpoint knows, and without references."""
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target: Any = root
        for part in reference.removeprefix("#/").split("/"):
            target = target.get(part, {}) if isinstance(target, dict) else {}
        # A type that contains itself ends at this depth.
        return _plain_schema(target, root, depth + 1) if depth < 8 else {}
    plain: dict[str, Any] = {}
    for name, value in schema.items():
        if name not in _PLAIN_KEYWORDS:
            continue
        if name == "properties":
            plain[name] = {
                key: _plain_schema(inner, root, depth + 1) for key, inner in value.items()
            }
        elif name == "anyOf":
            plain[name] = [_plain_schema(inner, root, depth + 1) for inner in value]
        elif name == "items":
            plain[name] = _plain_schema(value, root, depth + 1)
        else:
            plain[name] = value
    return plain


def _merge_system_message(payload: Payload) -> None:
    messages = payload["messages"]
    if len(messages) > 1 and messages[0]["role"] == "system" and messages[1]["role"] == "user":
        system, first, *others = messages
        merged = {**first, "content": f"{system['content']}\n\n{first['content']}"}
        payload["messages"] = [merged, *others]


def _do_not_stream(payload: Payload) -> None:
    if payload.get("stream"):
        payload["stream"] = False
        payload.pop("stream_options", None)


def _functions(payload: Payload) -> list[Payload]:
    return [tool["function"] for tool in payload.get("tools", ())]


@dataclass(frozen=True, slots=True)
class OptionalField:
    """A field, or a form of one, that a request can do without.

    Attributes:
        name: names it in the memory of what endpoints refuse.
        words: how servers name it.
        leave_out: changes a payload so that it is left out.
        is_common: True if the words may stand in any sentence.
    """

    name: str
    words: re.Pattern[str]
    leave_out: Callable[[Payload], None]
    is_common: bool = False


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


# In the order in which fields are left out if an error names none: those first that change least.
OPTIONAL_FIELDS: tuple[OptionalField, ...] = (
    OptionalField(
        "stream_options",
        _words(r"\bstream[_ ]options\b|include_usage"),
        _without("stream_options"),
    ),
    OptionalField(
        "parallel_tool_calls",
        _words(r"\bparallel[_ ](tool|function)[_ ]call"),
        _without("parallel_tool_calls"),
    ),
    OptionalField("seed", _words(r"\bseed\b"), _without("seed"), True),
    OptionalField("grammar", _words(r"\bgrammar\b|\bgbnf\b"), _without("grammar")),
    OptionalField(
        "guided_grammar",
        _words(r"\bguided[_ ]grammar\b|guided decoding"),
        _without("guided_grammar"),
    ),
    OptionalField(
        "structured_outputs",
        _words(r"\bstructured_outputs\b"),
        _without("structured_outputs"),
    ),
    OptionalField(
        "strict",
        _words(r"\bstrict\b|invalid[_ ]schema|invalid[_ ]json[_ ]schema"),
        _without_strict,
    ),
    OptionalField(
        "description",
        _words(r"\bdescriptions?\b"),
        _shorten_descriptions,
    ),
    OptionalField(
        "stop", _words(r"\bstop(_sequences?| sequences?| words?)?\b"), _without("stop"), True
    ),
    OptionalField("top_p", _words(r"\btop[_ -]?p\b|nucleus"), _without("top_p")),
    OptionalField(
        "reasoning_effort",
        _words(r"\breasoning[_ ]effort\b|\breasoning\.effort\b"),
        _without("reasoning_effort"),
    ),
    OptionalField("temperature", _words(r"\btemperature\b"), _without("temperature"), True),
    OptionalField(
        "logprobs",
        _words(r"\b(top_)?logprobs?\b|log[- ]probabilit"),
        _without("logprobs", "top_logprobs"),
    ),
    OptionalField("tool_choice", _words(r"\btool[_ ]choice\b"), _without("tool_choice")),
    OptionalField(
        "response_format",
        _words(
            r"\bresponse[_ ]?format\b|\bjson[_ -]?schema\b|structured[_ -]outputs?\b|"
            r"json (mode|output|response)|guided_json"
        ),
        _without_schema,
    ),
    OptionalField(
        "max_tokens",
        _words(r"\bmax[_ ](completion[_ ]|output[_ ]|new[_ ])?tokens\b"),
        _rename_bound,
    ),
    OptionalField(
        "max_completion_tokens",
        _words(r"\bmax[_ ](completion[_ ]|output[_ ]|new[_ ])?tokens\b"),
        _without("max_tokens", "max_completion_tokens"),
    ),
    OptionalField(
        "parameters",
        _words(r"\bparameters\b|schema for function|function_declarations|\$ref\b|\$defs\b"),
        _simplify_parameters,
    ),
    OptionalField(
        "n",
        _words(
            r"[`'\"]n[`'\"]|\bn (must|should|is|>|<|=)|(?<![\w.])n\Z|"
            r"multiple (choices|completions|samples)"
        ),
        _without("n"),
        True,
    ),
    OptionalField(
        "system",
        _words(
            r"\bsystem[_ ](role|message|prompt|instruction)|role[^.]{0,20}\bsystem\b|"
            r"developer instruction"
        ),
        _merge_system_message,
        True,
    ),
    OptionalField("stream", _words(r"\bstream(ing|ed)?\b"), _do_not_stream, True),
)
_BY_NAME = {field.name: field for field in OPTIONAL_FIELDS}

# Keys of an error under which servers name the field.
_PLACES = frozenset("param params parameter loc target field fields path property argument".split())
# Keys under which servers repeat the request.
_REPEATED = frozenset("input ctx body request request_body headers stack stacktrace".split())

_REFUSING = _words(
    r"support|unrecogni[sz]ed|unknown|unexpected|invalid|permitted|allowed|not implemented|"
    r"deprecated|extra (fields?|inputs?|arguments?)|unavailable|cannot|can't|only the default|"
    r"incompatible|must be|should be|too long|too large|at most|maximum length|no such|"
    r"not available"
)
# Errors about something else, although they may name a field.
_OTHER_CAUSES = _words(
    r"api[_ ]?key|unauthori[sz]ed|authenticat|quota|billing|credit|payment|rate[_ ]limit|"
    r"content[_ ](filter|policy|management)|safety system|moderation|pars\w+ (the )?grammar|"
    r"model[_ ]not[_ ]found|model [`'\"]?[\w./:-]+[`'\"]? (was )?(not found|does not exist)|"
    r"no such model|unknown model|invalid model"
)
_CONTEXT = _words(
    r"context[_ ]length[_ ]exceeded|exceed\w*[^.]{0,60}context|context[^.]{0,60}(exceed|too long)|"
    r"maximum context|too many (input )?tokens|(prompt|input|request) is too long"
)
_FILTERED = _words(r"content[_ ](filter|policy|management)|responsible ?ai|safety system")
_NO_FUNCTIONS = _words(
    r"(does not|doesn't|not) support (tools|tool use|tool calling|function calling|functions)|"
    r"(tools|tool use|tool calling|function calling|functions) (is|are) not supported|"
    r"requires --enable-auto-tool-choice|requires --jinja|tools param requires"
)

_OF_VALUE = _words(
    r"too (large|small|low|high)|at (least|most)|less than|greater than|minimum|maximum|exceed|"
    r"reached|range|between"
)

_NEVER = frozenset((401, 402, 403, 407, 408, 409, 423, 425, 429, 451))
"""Statuses of errors that no field of the request causes."""
_WITHOUT_NAME = frozenset((400, 415, 422, 501))
"""Statuses of errors that a field may cause, although they do not name it."""


@dataclass(frozen=True, slots=True)
class EndpointError:
    """An error as the endpoint sent it.

    Attributes:
        status: the HTTP status, or the code in an answer of status 200; 0 if there is none.
        body: the error's JSON, or its text.
    """

    status: int
    body: Any

    @classmethod
    def in_answer(cls, body: Any) -> EndpointError:
        """The error in an answer of status 200; its code counts as its status if it is one."""
        fields = body if isinstance(body, Mapping) else {}
        for name in ("status", "status_code", "code"):
            try:
                status = int(fields.get(name) or 0)
            except (ValueError, TypeError):
                continue
            if 400 <= status < 600:
                return cls(status, body)
        return cls(400 if fields.get("type") == "invalid_request_error" else 0, body)

    @property
    def text(self) -> str:
        """The endpoint's own words, cut at 500 characters."""
        body = self.body
        if isinstance(body, Mapping):
            for name in ("message", "detail", "error", "msg"):
                if body.get(name):
                    return join_surrogates(_in_words(body[name]))[:500]
        return join_surrogates(_in_words(body))[:500]

    @property
    def code(self) -> str:
        """The endpoint's name for the kind of error; may be empty."""
        code = self.body.get("code") if isinstance(self.body, Mapping) else None
        return code if isinstance(code, str) else ""

    @property
    def is_filtered(self) -> bool:
        """True if a content filter refused the prompt."""
        return any(_FILTERED.search(text) for text in self.texts())

    @property
    def is_about_functions(self) -> bool:
        """True if the model has no function calling."""
        return any(_NO_FUNCTIONS.search(text) for text in self.texts())

    @property
    def is_context_overflow(self) -> bool:
        """True if the prompt, with the answer that is asked for, is longer than the context."""
        return any(_CONTEXT.search(text) for text in self.texts())

    def places(self) -> list[str]:
        """The names of fields that stand under a key for them."""
        return [text for key, text in _strings(self.body) if key in _PLACES]

    def texts(self) -> list[str]:
        """The other texts of the error."""
        return [text for key, text in _strings(self.body) if key not in _PLACES]


def _in_words(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return str(type(value))


def _strings(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The strings of an error, each with the key that it stands under."""
    if isinstance(value, str):
        yield key, value[:2_000]
    elif isinstance(value, Mapping) and depth < 8:
        for name, inner in value.items():
            if name.lower() not in _REPEATED:
                yield from _strings(inner, name.lower(), depth + 1)
    elif isinstance(value, Sequence) and depth < 8:
        if key in _PLACES:
            yield key, ".".join(map(str, value))[:2_000]
        else:
            for inner in value[:20]:
                yield from _strings(inner, key, depth + 1)


def without_fields(payload: Mapping[str, Any], names: Iterable[str]) -> Payload:
    """The payload with these optional fields left out; ``payload`` itself stays as it is."""
    changed = copy.deepcopy(dict(payload))
    for field in OPTIONAL_FIELDS:
        if field.name in names:
            field.leave_out(changed)
    return changed


class FieldSearch:
    """The search for the fields that an endpoint refuses in one request.

    Args:
        payload: the request with all its fields.
        refused: names of the fields that the endpoint is known to refuse.
        needed: names of the fields without which the answer is of no use.
    """

    def __init__(
        self, payload: Mapping[str, Any], refused: Iterable[str], needed: Collection[str] = ()
    ) -> None:
        self._payload = payload
        self._refused = frozenset(refused)
        self._needed = needed
        self._named: list[str] = []
        self._unnamed: list[str] = []
        self._only_here: set[str] = set()

    @property
    def payload(self) -> Payload:
        """The request without the fields that are left out so far."""
        return without_fields(self._payload, self._left_out())

    @property
    def found(self) -> tuple[str, ...]:
        """The fields that were found to be refused, once a request has passed.

        Of fields that were left out without being named, only the last one is known to matter.
        """
        named = (name for name in self._named if name not in self._only_here)
        return (*named, *self._unnamed[-1:])

    def leave_out_next(self, error: EndpointError) -> str | None:
        """Leave out the field that an error is about.

        Returns:
            Its name; ``None`` if the request cannot be mended.
        """
        if error.status in _NEVER:
            return None
        current = self.payload
        texts = error.texts()
        fields = [field for field in OPTIONAL_FIELDS if self._changes(field, current)]
        field = _named_field(error, fields)
        if field is not None:
            if field.name in self._needed:
                return None
            self._named.append(field.name)
            if error.is_context_overflow or (
                "tokens" in field.name and any(map(_OF_VALUE.search, texts))
            ):
                self._only_here.add(field.name)  # this value is too large, for this prompt
            return field.name
        fields = [field for field in fields if field.name not in self._needed]
        is_other = error.is_context_overflow or error.is_about_functions
        is_other = is_other or any(map(_OTHER_CAUSES.search, texts))
        if error.status not in _WITHOUT_NAME or is_other or not fields:
            return None
        self._unnamed.append(fields[0].name)
        return fields[0].name

    def _left_out(self) -> frozenset[str]:
        return self._refused.union(self._named, self._unnamed)

    def _changes(self, field: OptionalField, current: Payload) -> bool:
        names = self._left_out()
        return field.name not in names and (
            without_fields(self._payload, names | {field.name}) != current
        )


def _named_field(error: EndpointError, fields: Sequence[OptionalField]) -> OptionalField | None:
    """The field that an error names; ``None`` if it names none."""
    for place in error.places():
        found = [(match.start(), field) for field in fields if (match := field.words.search(place))]
        if found:  # the last part of a path says most
            return max(found, key=lambda entry: entry[0])[1]
    texts = error.texts()
    is_refusal = any(map(_REFUSING.search, texts))
    if any(map(_OTHER_CAUSES.search, texts)) or not (is_refusal or error.status in _WITHOUT_NAME):
        return None
    for text in texts:
        found = [
            (match.start(), field)
            for field in fields
            if (match := field.words.search(text))
            and (is_refusal or not field.is_common or len(text) < 200)
        ]
        if found:
            return min(found, key=lambda entry: entry[0])[1]
    return None
