"""What a chat is made of: messages, and the functions that a model may call in them.

The module must not know who sends them where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a model may call, in the words of the chat API.

    Attributes:
        name: letters, digits, ``_`` and ``-``, 64 at most, which is what all endpoints take.
        description: for the model.
        parameters: JSON schema of its arguments, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call that a model wants made.

    Attributes:
        id: by which the result is given back.
        name: of the function, as the model wrote it.
        arguments: the JSON text that the model wrote; it need not be JSON.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    Attributes:
        role: whose it is; ``tool`` gives the result of a function call.
        content: its text.
        calls: of an assistant's message, the function calls in it.
        call: of a tool's message, the id of the call whose result it gives.
    """

    role: Role
    content: str
    calls: tuple[FunctionCall, ...] = ()
    call: str = ""
