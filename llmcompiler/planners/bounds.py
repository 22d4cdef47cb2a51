"""What planners say of an answer that ended at a bound."""

from __future__ import annotations

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import Completion
from llmcompiler.model_options import Purpose, explain_bound


def describe_cut(completion: Completion, purpose: Purpose) -> str:
    """Say which bound ended a completion; empty if none did."""
    if completion.finish != "length":
        return ""
    return explain_bound(purpose, completion.bound, completion.usage.reasoning_tokens)


def check_not_cut(completion: Completion, purpose: Purpose) -> None:
    """Check that a bound did not end a completion before it said anything.

    Raises:
        ModelError: it did. Asking again would end in the same way.
    """
    reason = describe_cut(completion, purpose)
    if reason and not completion.text.strip() and not completion.calls:
        raise ModelError(
            f"the planner's model wrote nothing: {reason}",
            hint="a model that thinks needs room for its thoughts: raise the bound, "
            "or lower reasoning_effort",
        )
