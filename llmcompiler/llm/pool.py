"""The models of an application by role, opened at the first call that needs one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from llmcompiler.llm.base import ChatModel
from llmcompiler.model_options import ModelOptions

ModelSpec: TypeAlias = str | ChatModel


class ModelPool:
    """Opens each model once, whatever the number of its roles.

    Args:
        specs: a model's name, or a model, by role.
        base_url: address for names of the kind ``openai:NAME``.
        api_key: its key.
        options: options of the models that are opened by name.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        options: ModelOptions | None = None,
    ) -> None:
        self._specs = dict(specs)
        self._endpoint = (base_url, api_key)
        self._options = options
        self._opened: dict[str, ChatModel] = {}

    def model_for(self, role: str) -> ChatModel:
        """The model of a role.

        Raises:
            UsageError: its name is no model's, or an extra that it needs is not installed.
            ModelError: its weights cannot be downloaded.
        """
        spec = self._specs[role]
        if not isinstance(spec, str):
            return spec
        if spec not in self._opened:
            from llmcompiler.llm.models import open_model

            base_url, api_key = self._endpoint if spec.startswith("openai:") else (None, None)
            self._opened[spec] = open_model(
                spec, base_url=base_url, api_key=api_key, options=self._options
            )
        return self._opened[spec]

    def open(self, *roles: str) -> None:
        """Open models before a run begins, so that a model that cannot be opened leaves no log."""
        for role in roles:
            self.model_for(role)

    async def aclose(self) -> None:
        """Close the models that were opened by name; models that were passed in stay open."""
        opened, self._opened = list(self._opened.values()), {}
        for model in opened:
            await model.aclose()
