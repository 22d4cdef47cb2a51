"""Pure helper functions of a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llmcompiler.programs.meter import Meter, ReturnValue

Env: TypeAlias = dict[str, Any]
"""Values of variables by name, while a statement runs."""

CompiledCode: TypeAlias = Callable[[Env], Any]
"""An expression or statement, compiled."""


class Helper:
    """A pure helper function of a program.

    Args:
        name: its name.
        parameters: names of its parameters, in order, as they stand in the environment.
        names: the same names as the program spells them.
        defaults: values of the last parameters, compiled.
        body: its statements, compiled.
        local: names that it assigns.
        meter: counts its calls.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[str],
        names: Sequence[str],
        defaults: Sequence[CompiledCode],
        body: CompiledCode,
        local: frozenset[str],
        meter: Meter,
    ) -> None:
        self.name = name
        self._parameters = list(parameters)
        self._names = list(names)
        self._defaults = list(defaults)
        self._body = body
        self._local = local
        self._meter = meter

    def fill(self, body: CompiledCode, defaults: Sequence[CompiledCode]) -> None:
        """Give the function its code, once the functions that it may call are known."""
        self._body, self._defaults = body, list(defaults)

    def bind(self, env: Env) -> Callable[..., Any]:
        """The function, for a place of the program where the variables are those of ``env``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._meter.step()
            values = self._values(env, args, kwargs)
            for name in self._local:
                env.pop(name, None)
            env.update(values)
            try:
                self._body(env)
            except ReturnValue as result:
                return result.value
            return None

        return call

    def _values(self, env: Env, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) > len(self._parameters):
            raise TypeError(
                f"{self.name}() takes {len(self._parameters)} positional arguments but "
                f"{len(args)} were given"
            )
        values = dict(zip(self._parameters, args, strict=False))
        for name, value in kwargs.items():
            if name not in self._names:
                raise TypeError(f"{self.name}() got an unexpected keyword argument '{name}'")
            inner = self._parameters[self._names.index(name)]
            if inner in values:
                raise TypeError(f"{self.name}() got multiple values for argument '{name}'")
            values[inner] = value
        first = len(self._parameters) - len(self._defaults)
        for number, name in enumerate(self._parameters):
            if name not in values:
                if number < first:
                    raise TypeError(
                        f"{self.name}() missing a required argument: '{self._names[number]}'"
                    )
                values[name] = self._defaults[number - first](env)
        return values
