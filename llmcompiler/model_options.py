"""How a model is asked: the bounds of its answers, and what is sent with each request.

Settings files, the command line and Python set the same options, so they stand beside ``limits``,
which both settings and models may import.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Purpose: TypeAlias = Literal["plan", "turn", "answer", "branch"]
"""What a model is asked for: a plan, a turn of a planner that goes from result to result, the
joiner's answer, or a call of a reasoning branch."""

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0


class ModelOptions(BaseModel):
    """The options of one model.

    A bound that is not set is not sent, and then the endpoint's own bound holds. What a reasoning
    model thinks counts towards a bound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_plan_tokens: int | None = Field(default=None, gt=0, description="most tokens of a plan")
    max_turn_tokens: int | None = Field(
        default=None, gt=0, description="most tokens of a turn of react or function-calling"
    )
    max_answer_tokens: int | None = Field(
        default=None, gt=0, description="most tokens of the joiner's answer"
    )
    max_branch_tokens: int | None = Field(
        default=None, gt=0, description="most tokens of a call of a reasoning branch"
    )
    temperature: float | None = Field(
        default=None, ge=0, description="temperature where the caller asks for the likeliest text"
    )
    reasoning_effort: str | None = Field(
        default=None, description="how much the model thinks: low, medium, high, or its own word"
    )
    headers: dict[str, str] = Field(
        default={}, repr=False, description="headers of each request; ${NAME} is a variable"
    )
    extra_body: dict[str, Any] = Field(
        default={}, description="further fields of each request's body"
    )
    request_timeout: float | None = Field(
        default=None, gt=0, description="seconds that a request may take in all"
    )
    read_timeout: float = Field(
        default=READ_TIMEOUT_S, gt=0, description="seconds without a byte of the answer"
    )
    connect_timeout: float = Field(
        default=CONNECT_TIMEOUT_S, gt=0, description="seconds until the endpoint is reached"
    )
    proxy: str | None = Field(default=None, repr=False, description="address of a proxy")

    def bound(self, purpose: Purpose | None) -> int | None:
        """The most tokens of an answer for this purpose; ``None`` if there is no bound."""
        match purpose:
            case "plan":
                return self.max_plan_tokens
            case "turn":
                return self.max_turn_tokens
            case "answer":
                return self.max_answer_tokens
            case "branch":
                return self.max_branch_tokens
        return None


SMALL_MODEL_OPTIONS = ModelOptions(
    max_plan_tokens=1024, max_turn_tokens=600, max_answer_tokens=600, max_branch_tokens=1024
)
"""For small models, which repeat themselves without end if nothing stops them."""


def cut_off_note(purpose: Purpose, bound: int | None) -> str:
    """What stands behind a text that ended at a bound; it names the bound, without its number."""
    setting = f"max_{purpose}_tokens of the model's options"
    if bound is None:
        return f" … (cut off at a bound of the endpoint's own; {setting} may ask for more)"
    return f" … (cut off at the bound {setting})"


def explain_bound(purpose: Purpose, bound: int | None, thought_tokens: int = 0) -> str:
    """Say at which bound an answer ended, and where the bound is set.

    Args:
        purpose: of the request.
        bound: the most tokens that the request allowed; ``None`` if it set no bound.
        thought_tokens: tokens that the model thought, where that is known.
    """
    setting = f"max_{purpose}_tokens of the model's options ([models.NAME] in llmcompiler.toml)"
    thought = f", {thought_tokens} of them for thinking" if thought_tokens else ""
    if bound is None:
        return f"it ended at a bound of the endpoint's own{thought}; {setting} may ask for more"
    return f"it ended at the bound of {bound} tokens{thought}; {setting} sets the bound"
