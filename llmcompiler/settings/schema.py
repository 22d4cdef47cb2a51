"""The settings and their meaning: one model for files, environment and flags.

The key of an endpoint is no setting. A setting names the variable that holds the key, so that no
output, log or commit can contain it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from llmcompiler.limits import Limits
from llmcompiler.model_options import ModelOptions
from llmcompiler.tools.base import DEFAULT_TOOLS
from llmcompiler.tools.mcp.server import CONNECT_TIMEOUT, TIMEOUT

PromptProfile: TypeAlias = Literal["auto", "small", "strong"]

PREFIX = "LLMCOMPILER_"
KEY_VARIABLE = "OPENAI_API_KEY"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _list_of_specs(value: Any) -> Any:
    """The list of specs in a variable or a file: a text is one spec, or several as a JSON list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        import json

        return json.loads(value)
    return [value]


def _check_variable_name(value: str | None) -> str | None:
    if value is not None and not _VARIABLE.fullmatch(value):
        # The message does not repeat the value, which may be the key itself.
        raise ValueError("this is no name of an environment variable")
    return value


class McpServerSettings(BaseModel):
    """A server of MCP tools; ``${NAME}`` in ``env`` and ``headers`` is a variable."""

    model_config = ConfigDict(extra="forbid")

    command: str | list[str] | None = Field(
        default=None, description="the program, with its arguments"
    )
    url: str | None = Field(default=None, description="the address of a server that runs already")
    env: dict[str, str] = Field(default={}, description="variables that the program sees")
    headers: dict[str, str] = Field(default={}, description="headers of each request")
    directory: Path | None = Field(default=None, description="where the program runs")
    prefix: str = Field(default="", description="stands before the names of its tools")
    timeout: float = Field(default=TIMEOUT, description="seconds that a call may take", gt=0)
    connect_timeout: float = Field(
        default=CONNECT_TIMEOUT, description="seconds until it must answer", gt=0
    )


class RaySettings(BaseModel):
    """The cluster that calls go to with ``executor = "ray"``."""

    model_config = ConfigDict(extra="forbid")

    address: str | None = Field(
        default=None, description="auto, HOST:PORT or ray://HOST:PORT; this machine if not set"
    )
    values: Path | None = Field(
        default=None, description="a directory for large values that all machines see"
    )
    above: int = Field(
        default=1_000_000, gt=0, description="bytes above which a value is kept there"
    )


class EndpointProfile(BaseModel):
    """An endpoint and what goes with it, chosen by name."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None, description="local, local:NAME, local:/file.gguf, openai:NAME, PROVIDER:NAME"
    )
    base_url: str | None = Field(default=None, description="endpoint of openai: models")
    api_key_variable: str | None = Field(
        default=None, description="name of the environment variable that holds the endpoint's key"
    )
    planner: str | None = Field(
        default=None, description="how questions are planned: text, structured, …"
    )
    prompt_profile: PromptProfile | None = Field(
        default=None, description="what planner and joiner are shown: auto, small or strong"
    )
    context_tokens: int | None = Field(
        default=None, gt=0, description="tokens that the model can read"
    )
    reason: str | None = Field(default=None, description="strategy by which planners may reason")
    join_reducer: str | None = Field(
        default=None, description="how drafts of the answer become one: vote, best_of, …"
    )
    limits: Limits | None = Field(default=None, description="bounds of a run")

    _check_variable = field_validator("api_key_variable")(_check_variable_name)


class Settings(BaseSettings):
    """Everything that can be set. The descriptions are the hints of error messages."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        protected_namespaces=(),
    )

    profile: str | None = Field(default=None, description="name of one of the profiles")
    model: str = Field(
        default="local",
        description="local, local:NAME, local:/file.gguf, openai:NAME, PROVIDER:NAME",
    )
    base_url: str | None = Field(default=None, description="endpoint of openai: models")
    api_key_variable: str = Field(
        default=KEY_VARIABLE,
        description="name of the environment variable that holds the endpoint's key",
    )
    planner: str = Field(
        default="text", description="how questions are planned: text, structured, …"
    )
    prompt_profile: PromptProfile = Field(
        default="auto", description="what planner and joiner are shown: auto, small or strong"
    )
    context_tokens: int | None = Field(
        default=None, gt=0, description="tokens that the model can read; by its name if not set"
    )
    reason: str | None = Field(default=None, description="strategy by which planners may reason")
    join_reducer: str | None = Field(
        default=None, description="how drafts of the answer become one: vote, best_of, …"
    )
    tools: Annotated[list[str], NoDecode, BeforeValidator(_list_of_specs)] = Field(
        default=list(DEFAULT_TOOLS), description="what plans may call: a list of what --tools takes"
    )
    prompts: Path | None = Field(default=None, description="a file of texts for planner and joiner")
    store: Path | None = Field(
        default=None, description="the file of runs; the user's own if not set"
    )
    executor: Literal["local", "ray"] = Field(
        default="local", description="where tools are called: local or ray"
    )
    ray: RaySettings = Field(default=RaySettings(), description="the cluster of executor ray")
    limits: Limits = Field(default=Limits(), description="bounds of a run")
    mcp: dict[str, McpServerSettings] = Field(
        default={}, description="servers of MCP tools, by name"
    )
    models: dict[str, ModelOptions] = Field(
        default={}, description="options of models, by what --model takes, or default for all"
    )
    profiles: dict[str, EndpointProfile] = Field(default={}, description="endpoints, by name")

    _check_variable = field_validator("api_key_variable")(_check_variable_name)
