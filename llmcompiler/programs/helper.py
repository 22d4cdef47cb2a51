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
        compile_code: gives its statements and the defaults of its last parameters, compiled. It is
            called at the first call, when the helpers that stand below are known too.
        local: names that it assigns.
        meter: counts its calls.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[str],
        names: Sequence[str],
        compile_code: Callable[[], tuple[CompiledCode, Sequence[CompiledCode]]],
        local: frozenset[str],
        meter: Meter,
    ) -> None:
        self.name = name
        self._parameters = list(parameters)
        self._names = list(names)
        self._compile_code = compile_code
        self._compiled: tuple[CompiledCode, Sequence[CompiledCode]] | None = None
        self._local = local
        self._meter = meter

    def bind(self, env: Env) -> Callable[..., Any]:
        """The function, for a place of the program where the variables are those of ``env``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._meter.step()
            if self._compiled is None:
                self._compiled = self._compile_code()
            body, defaults = self._compiled
            values = self._values(env, defaults, args, kwargs)
            for name in self._local:
                env.pop(name, None)
            env.update(values)
            try:
                body(env)
            except ReturnValue as result:
                return result.value
            return None

        return call

    def _values(
        self,
        env: Env,
        defaults: Sequence[CompiledCode],
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> dict[str, Any]:
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
        first = len(self._parameters) - len(defaults)
        for number, name in enumerate(self._parameters):
            if name not in values:
                if number < first:
                    raise TypeError(
                        f"{self.name}() missing a required argument: '{self._names[number]}'"
                    )
                values[name] = defaults[number - first](env)
        return values
