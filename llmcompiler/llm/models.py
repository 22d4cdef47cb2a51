"""From a model's name, as users write it, to a ``ChatModel``.

``local`` and ``local:NAME`` are embedded models, ``local:/file.gguf`` is an embedded model with the
user's own weights, ``native:NAME`` a model whose calls can share attention, ``openai:NAME`` a
model of an OpenAI-compatible endpoint, and ``PROVIDER:NAME`` a model of a provider (``providers``).
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

from llmcompiler.errors import UsageError
from llmcompiler.llm import weights
from llmcompiler.llm.base import ChatModel
from llmcompiler.llm.embedded import EmbeddedModel, check_installed
from llmcompiler.llm.endpoint import DEFAULT_BASE_URL, EndpointModel
from llmcompiler.llm.limits import ModelLimits
from llmcompiler.llm.providers import COMPATIBLE, LIBRARY, PROVIDERS, CompatibleProvider
from llmcompiler.model_options import SMALL_MODEL_OPTIONS, ModelOptions

__all__ = ["DEFAULT_MODEL", "ModelLimits", "open_model"]

DEFAULT_MODEL = "local"
_FORMS = (
    "local, local:NAME, local:/file.gguf, native:NAME, openai:NAME or a provider's, such as "
    "anthropic:NAME"
)
_log = logging.getLogger(__name__)


def open_model(
    spec: str | ChatModel,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    limits: ModelLimits | None = None,
    options: ModelOptions | None = None,
    progress: weights.Progress | None = None,
) -> ChatModel:
    """The model that ``spec`` names; a ``ChatModel`` is returned as it is.

    This loads no model and asks no endpoint. The weights of a named local model are downloaded if
    they are absent, which may take minutes.

    Args:
        spec: ``local`` (the default weights), ``local:NAME``, ``local:/file.gguf``,
            ``native:NAME`` (weights of that name, a file, a directory, or a name on the hub; then
            perhaps ``,dtype=bfloat16,device=cuda``), ``openai:NAME``, or ``PROVIDER:NAME`` with a
            name of ``providers.PROVIDERS``.
        base_url: the address of an endpoint or provider; default for ``openai:NAME`` is
            ``OPENAI_BASE_URL``, then OpenAI's own.
        api_key: its key; default ``OPENAI_API_KEY``, or the provider's variable. Empty for none.
        limits: requests and tokens a minute, requests at once.
        options: bounds of answers, temperature, headers, time-outs and more. Embedded models have
            bounds of their own, which those that are set replace.
        progress: called during a download; without it, a download logs one line.

    Raises:
        UsageError: ``spec`` names no model, or an extra that the model needs is not installed.
        ModelError: the weights cannot be downloaded.
    """
    if not isinstance(spec, str):
        return spec
    kind, _, name = spec.partition(":")
    if kind == "local":
        return _open_local(name, limits, options, progress)
    if kind == "openai":
        return _open_openai(name, base_url, api_key, limits, options)
    if kind == "native":
        return _open_native(name, spec, limits, options, progress)
    if kind in PROVIDERS:
        return _open_provider(kind, name, base_url, api_key, limits, options or ModelOptions())
    kinds = ["local", "native", "openai", *PROVIDERS]
    close = difflib.get_close_matches(kind, [*kinds, *weights.WEIGHTS], n=1)
    close = [f"{near}:{name}" if name else near for near in close]
    if spec in weights.WEIGHTS:
        hint = f"did you mean local:{spec}?"
    elif close:
        hint = f"did you mean {close[0]}? A model is {_FORMS}"
    else:
        hint = f"a model is {_FORMS}"
    raise UsageError(f"unknown model {spec!r}", hint=hint)


def _open_local(
    name: str,
    limits: ModelLimits | None,
    options: ModelOptions | None,
    progress: weights.Progress | None,
) -> EmbeddedModel:
    check_installed()
    embedded_options = _with_bounds(options)
    if name.endswith(".gguf") or "/" in name or os.sep in name:
        return EmbeddedModel(Path(name).expanduser(), limits=limits, options=embedded_options)
    name = name or weights.DEFAULT
    size = weights.find_weights(name).size
    if progress is None and not weights.is_pulled(name):
        _log.warning("downloading the weights of %s (%d MB)", name, size // 10**6)
    path = weights.pull_weights(name, progress)
    return EmbeddedModel(path, name=f"local:{name}", limits=limits, options=embedded_options)


def _open_native(
    location_text: str,
    spec: str,
    limits: ModelLimits | None,
    options: ModelOptions | None,
    progress: weights.Progress | None,
) -> ChatModel:
    from llmcompiler.llm.native import location as native
    from llmcompiler.llm.native.model import NativeModel

    if limits is not None:
        raise UsageError(
            "a native model takes no limits of requests", hint="it writes as fast as it can"
        )
    location = native.parse_location(location_text)
    # NativeModel checks too, but only after the weights were downloaded.
    native.require_native()
    if location.place in weights.WEIGHTS:
        path = weights.pull_weights(location.place, progress)
        location = dataclasses.replace(location, place=str(path))
    return NativeModel(location, name=spec, options=_with_bounds(options))


def _with_bounds(options: ModelOptions | None) -> ModelOptions:
    """The options of a small model, with those that are set in their place."""
    if options is None:
        return SMALL_MODEL_OPTIONS
    return SMALL_MODEL_OPTIONS.model_copy(update=options.model_dump(exclude_unset=True))


def _open_openai(
    model: str,
    base_url: str | None,
    api_key: str | None,
    limits: ModelLimits | None,
    options: ModelOptions | None,
) -> EndpointModel:
    if not model:
        raise UsageError("openai: lacks a model's name", hint="for example openai:gpt-4.1-mini")
    url = base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
    _check_address(url)
    key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
    if not key and url == DEFAULT_BASE_URL:
        raise UsageError(
            f"openai:{model} needs a key", hint="set OPENAI_API_KEY, or OPENAI_BASE_URL to a server"
        )
    return EndpointModel(
        model, base_url=url, api_key=key, limits=limits, options=options or ModelOptions()
    )


def _check_address(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"the base URL {url!r} is not http or https")


def _open_provider(
    provider: str,
    model: str,
    base_url: str | None,
    api_key: str | None,
    limits: ModelLimits | None,
    options: ModelOptions,
) -> EndpointModel:
    entry = COMPATIBLE.get(provider) or LIBRARY[provider]
    spec = f"{provider}:{model}"
    if not model:
        raise UsageError(f"{spec} lacks a model's name", hint=f"for example {spec}{entry.example}")
    url = base_url or entry.address()
    if not url and entry.needs_url:
        raise UsageError(f"{spec} needs an address", hint=f"set {entry.url_variable}")
    if url:
        _check_address(url)
    key = entry.find_key(spec) if api_key is None else api_key
    if isinstance(entry, CompatibleProvider):
        return EndpointModel(
            model, base_url=url, api_key=key, name=spec, limits=limits, options=options
        )
    from llmcompiler.llm.provider_model import ProviderModel

    return ProviderModel(
        provider, model, base_url=url or None, api_key=key, limits=limits, options=options
    )
