"""What a chat is made of: messages, functions that a model may call, and calls of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

MessageRole: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a model may call, as the chat API describes it.

    Attributes:
        name: letters, digits, ``_`` and ``-``, 64 at most, which is what all endpoints take.
        description: for the model.
        parameters: JSON schema of the arguments, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call of a function that a model asks for.

    Attributes:
        id: names the call in the message that gives its result.
        name: the function's name, as the model wrote it.
        arguments: the text that the model wrote; it should be JSON, but need not be.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    Attributes:
        role: who speaks; a message of ``tool`` gives the result of a function call.
        content: the text.
        calls: the function calls of an assistant's message.
        call: in a tool's message, the id of the call whose result it gives.
    """

    role: MessageRole
    content: str
    calls: tuple[FunctionCall, ...] = ()
    call: str = ""
