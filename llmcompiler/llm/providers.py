"""Providers by name: where each is reached, and which variable holds its key.

Many providers speak OpenAI's protocol; a row of ``COMPATIBLE`` is all that they need. The others
(``LIBRARY``) are reached through ``any-llm``, which the extra ``providers`` installs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from llmcompiler.errors import UsageError


@dataclass(frozen=True, slots=True)
class CompatibleProvider:
    """A provider that speaks OpenAI's protocol.

    Attributes:
        base_url: where its API begins.
        key_variable: the environment variable that holds the key.
        url_variable: the environment variable that holds another address.
        needs_key: False for a server of the user's own.
        example: a model of the provider, for messages.
    """

    base_url: str
    key_variable: str
    url_variable: str
    needs_key: bool = True
    example: str = "NAME"
    needs_url = False

    def address(self) -> str:
        """The address in the provider's variable, else the usual one."""
        url = os.environ.get(self.url_variable, "").strip()
        if self.url_variable == "OLLAMA_HOST" and url:
            return _ollama_address(url)
        return url or self.base_url

    def find_key(self, spec: str) -> str:
        """The key in the provider's variable; empty if there is none.

        Raises:
            UsageError: the provider needs a key.
        """
        return _find_key((self.key_variable,), spec, is_needed=self.needs_key)


@dataclass(frozen=True, slots=True)
class LibraryProvider:
    """A provider with a protocol of its own.

    Attributes:
        library_name: the library's name for it.
        key_variables: environment variables that may hold the key; none if the key is not a text.
        url_variable: the environment variable that holds the address.
        needs_url: True if there is no address for everybody.
        example: a model of the provider, for messages.
    """

    library_name: str
    key_variables: tuple[str, ...]
    url_variable: str
    needs_url: bool = False
    example: str = "NAME"

    def address(self) -> str:
        """The address in the provider's variable; empty for the usual one."""
        return os.environ.get(self.url_variable, "").strip()

    def find_key(self, spec: str) -> str:
        """The key in the first of the provider's variables that is set.

        Raises:
            UsageError: there are variables for the key, and none is set.
        """
        return _find_key(self.key_variables, spec, is_needed=bool(self.key_variables))


COMPATIBLE: Mapping[str, CompatibleProvider] = {
    "cerebras": CompatibleProvider(
        "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "CEREBRAS_API_BASE"
    ),
    "deepseek": CompatibleProvider(
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        "DEEPSEEK_API_BASE",
        example="deepseek-chat",
    ),
    "fireworks": CompatibleProvider(
        "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "FIREWORKS_API_BASE"
    ),
    "groq": CompatibleProvider("https://api.groq.com/openai/v1", "GROQ_API_KEY", "GROQ_BASE_URL"),
    "lmstudio": CompatibleProvider(
        "http://127.0.0.1:1234/v1", "LMSTUDIO_API_KEY", "LMSTUDIO_API_BASE", needs_key=False
    ),
    "moonshot": CompatibleProvider(
        "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "MOONSHOT_API_BASE"
    ),
    "ollama": CompatibleProvider(
        "http://127.0.0.1:11434/v1",
        "OLLAMA_API_KEY",
        "OLLAMA_HOST",
        needs_key=False,
        example="qwen3:8b",
    ),
    "openrouter": CompatibleProvider(
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        "OPENROUTER_API_BASE",
        example="qwen/qwen3-32b",
    ),
    "qwen": CompatibleProvider(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        "DASHSCOPE_API_BASE",
        example="qwen-plus",
    ),
    "together": CompatibleProvider(
        "https://api.together.xyz/v1", "TOGETHER_API_KEY", "TOGETHER_API_BASE"
    ),
    "vllm": CompatibleProvider(
        "http://127.0.0.1:8000/v1", "VLLM_API_KEY", "VLLM_API_BASE", needs_key=False
    ),
    "xai": CompatibleProvider("https://api.x.ai/v1", "XAI_API_KEY", "XAI_API_BASE"),
}

LIBRARY: Mapping[str, LibraryProvider] = {
    "anthropic": LibraryProvider("anthropic", ("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL"),
    "azure": LibraryProvider(
        "azureopenai", ("AZURE_OPENAI_API_KEY",), "AZURE_OPENAI_ENDPOINT", needs_url=True
    ),
    # The key may also be in the files of the AWS command line, so no variable is asked for.
    "bedrock": LibraryProvider("bedrock", (), "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
    "cohere": LibraryProvider("cohere", ("COHERE_API_KEY",), "COHERE_BASE_URL"),
    "gemini": LibraryProvider(
        "gemini", ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "GOOGLE_GEMINI_BASE_URL"
    ),
    "mistral": LibraryProvider("mistral", ("MISTRAL_API_KEY",), "MISTRAL_API_BASE"),
    "vertexai": LibraryProvider("vertexai", (), "VERTEXAI_API_BASE"),
}

PROVIDERS = (*COMPATIBLE, *LIBRARY)
"""The names that stand before a model's name."""


def _ollama_address(host: str) -> str:
    """``OLLAMA_HOST`` as Ollama reads it: a host, perhaps with a scheme and a port."""
    if "://" not in host:
        host = f"http://{host}"
    scheme, _, rest = host.partition("://")
    place, slash, path = rest.partition("/")
    # A server listens on all addresses at 0.0.0.0; a client reaches it on this machine.
    name, colon, port = place.rpartition(":") if ":" in place else (place, "", "")
    name = "127.0.0.1" if name in ("", "0.0.0.0") else name
    place = f"{name}:{port}" if colon else f"{name}:11434"
    path = f"{slash}{path}".rstrip("/")
    return f"{scheme}://{place}{path or '/v1'}"


def _find_key(variables: tuple[str, ...], spec: str, *, is_needed: bool) -> str:
    key = next((value for name in variables if (value := os.environ.get(name, "").strip())), "")
    if not key and is_needed:
        raise UsageError(f"{spec} needs a key", hint=f"set {' or '.join(variables)}")
    return key
