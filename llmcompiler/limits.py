"""Limits of a run. A run that reaches one ends with an event and a clear error; it never hangs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmcompiler.errors import UsageError


class Limits(BaseModel):
    """Bounds of one run.

    Attributes:
        concurrency: most tool calls at a time; ``None`` for no limit.
        deadline: seconds after its start at which the run is stopped.
        replans: most plans after the first for which the joiner may ask.
        repairs: most requests to a planner to mend a broken plan.
        model_calls: most model calls.
        tokens: most tokens, prompts and answers together.
        loop_iterations: most iterations of one loop of a program.
        tool_calls: most tool calls, elements of fan-outs and retries included.
        cost: most US dollars for model calls; the call that exceeds it is the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int | None = Field(
        default=None, ge=1, description="a number of tool calls, at least 1"
    )
    deadline: float | None = Field(default=None, gt=0, description="seconds, more than 0")
    replans: int = Field(default=2, ge=0, description="a number of replans, 0 or more")
    repairs: int = Field(default=2, ge=0, description="a number of repairs, 0 or more")
    loop_iterations: int = Field(
        default=100_000, ge=1, description="a number of iterations, at least 1"
    )
    model_calls: int | None = Field(default=None, ge=0, description="a number of model calls")
    tokens: int | None = Field(default=None, ge=0, description="a number of tokens")
    tool_calls: int | None = Field(default=None, ge=0, description="a number of tool calls")
    cost: float | None = Field(default=None, ge=0, description="US dollars")

    @classmethod
    def parse(cls, settings: dict[str, str]) -> Limits:
        """Limits from texts, as the command line has them.

        Raises:
            UsageError: an unknown limit, or a value that does not fit.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise UsageError(
                    f'there is no limit "{name}"', hint=f"one of {', '.join(cls.model_fields)}"
                ) from None
            raise UsageError(
                f"limit {name}={first['input']}: {first['msg']}",
                hint=cls.model_fields[name].description or "",
            ) from None
