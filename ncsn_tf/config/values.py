"""Values of a configuration's keys: read from text, and checked against the type that the schema gives a key.

The types are those of the dataclasses in `config.schema`: int, float, bool, str, a tuple of two or of any number of
integers, a tuple of numbers, and unions of these, with None where None is the default.
"""

import math
import numbers
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")
_NONE = ("none", "null")
_PAIR = re.compile(r"[(\[]?\s*([+-]?\d+)\s*,\s*([+-]?\d+)\s*,?\s*[)\]]?")
_BRACKETS = re.compile(r"^\s*[(\[]|[)\]]\s*$")
_LARGEST = 2**63
"""Integers are below it in absolute value, as int64 holds them."""
_SHOWN = 80
"""The number of characters of a value that a message shows."""


class _MisfitError(Exception):
    """A value is of another type, or cannot be used; then the text says what is expected."""


def checked(where: str, kind: Any, value: Any) -> Any:
    """Returns a value in its key's plain type: an integer becomes a float, a list a tuple, a NumPy scalar a number.

    Args:
      where: the key's name, for the message, such as "config.optim.learning_rate".
      kind: the type in the schema.
      value: the value.

    Raises:
      ValueError: if the value is of another type, not finite, empty text, or an integer beyond 64 bits.
    """
    return _first(where, kind, value, _FITTING)


def from_text(where: str, kind: Any, text: str) -> Any:
    """Returns the value that a text on the command line means; see `checked`."""
    return checked(where, kind, _first(where, kind, text, _READING))


def is_switch(kind: Any) -> bool:
    """Returns whether a key of this type is true or false."""
    return bool in _members(kind)


def reads_as_switch(text: str) -> bool:
    """Returns whether a text means true or false."""
    return text.strip().lower() in _TRUE + _FALSE


def described(value: Any) -> str:
    """A value and its type, in a few words, for a message."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a very large integer"
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return text if value is None or isinstance(value, str) else f"{text} ({type(value).__name__})"


def _first(where: str, kind: Any, value: Any, table: dict[Any, Callable[[Any], Any]]) -> Any:
    """The value as the first member of a union that takes it; raises ValueError if none does."""
    expected = [_WORDS[member] for member in _members(kind)]
    for member in sorted(_members(kind), key=lambda member: member is not types.NoneType):  # "None" is no text
        try:
            return table[member](value)
        except _MisfitError as misfit:
            expected = list(misfit.args) or expected
    raise ValueError(f"{where} must be {' or '.join(expected)}. Received: {described(value)}.")


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


# A function per type, from a value of any type


def _none(value: Any) -> None:
    if value is not None:
        raise _MisfitError


def _switch(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _MisfitError
    return bool(value)


def _integer(value: Any) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise _MisfitError
    number = int(value)
    if not -_LARGEST < number < _LARGEST:
        raise _MisfitError("an integer of at most 64 bits")
    return number


def _number(value: Any) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise _MisfitError
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _MisfitError("a finite number")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _MisfitError
    if not value.strip():
        raise _MisfitError("text that is not empty")
    return str(value)


def _integers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise _MisfitError
    return tuple(_integer(item) for item in value)


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise _MisfitError
    return tuple(_number(item) for item in value)


def _pair(value: Any) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _MisfitError
    return _integer(value[0]), _integer(value[1])


# A function per type, from text


def _read_none(text: str) -> None:
    if text.strip().lower() not in _NONE:
        raise _MisfitError


def _read_switch(text: str) -> bool:
    if not reads_as_switch(text):
        raise _MisfitError
    return text.strip().lower() in _TRUE


def _read_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _MisfitError from None


def _read_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _MisfitError from None


def _read_text(text: str) -> str:
    if text.strip() == "None":  # the value, where it is allowed, and hardly a name
        raise _MisfitError
    return text


def _read_integers(text: str) -> tuple[int, ...]:
    items = _BRACKETS.sub("", text).split(",")
    return tuple(_read_integer(item) for item in items if item.strip())


def _read_numbers(text: str) -> tuple[float, ...]:
    items = _BRACKETS.sub("", text).split(",")
    return tuple(_read_number(item) for item in items if item.strip())


def _read_pair(text: str) -> tuple[int, int]:
    found = _PAIR.fullmatch(text.strip())
    if found is None:
        raise _MisfitError
    return int(found[1]), int(found[2])


_FITTING = {
    types.NoneType: _none,
    bool: _switch,
    int: _integer,
    float: _number,
    str: _text,
    tuple[int, int]: _pair,
    tuple[int, ...]: _integers,
    tuple[float, ...]: _numbers,
}
_READING = {
    types.NoneType: _read_none,
    bool: _read_switch,
    int: _read_integer,
    float: _read_number,
    str: _read_text,
    tuple[int, int]: _read_pair,
    tuple[int, ...]: _read_integers,
    tuple[float, ...]: _read_numbers,
}
_WORDS = {
    types.NoneType: "None",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    tuple[int, int]: "a pair of integers (height, width)",
    tuple[int, ...]: "integers with commas between them",
    tuple[float, ...]: "numbers with commas between them",
}
