"""What values an option takes, read from its annotation.

Annotations are `int`, `float`, `bool`, `str`, `Literal[...]`, `tuple[...]`,
`dict[str, T]`, `X | Y`, `X | None` and each of them with bounds,
`Annotated[T, Bounds(...)]`. Integers fit in 32 bits, floats are finite.
"""

from collections.abc import Mapping
from collections.abc import Sized
import dataclasses
import math
import numbers
import types
import typing
from typing import Annotated
from typing import Any
from typing import Literal

_INTEGER_LIMIT = 2**31


@dataclasses.dataclass(frozen=True)
class Bounds:
  """An interval of numbers; an open end is not in it."""

  low: float = -math.inf
  high: float = math.inf
  open_low: bool = False
  open_high: bool = False

  def check(self, value: float) -> bool:
    """Returns whether a value lies in the interval."""
    above = value > self.low if self.open_low else value >= self.low
    below = value < self.high if self.open_high else value <= self.high
    return above and below

  @property
  def text(self) -> str:
    """The interval in words, as "at least 1" or "from 0 to 1"."""
    has_low, has_high = math.isfinite(self.low), math.isfinite(self.high)
    if has_low and has_high and not (self.open_low or self.open_high):
      return f"from {self.low:g} to {self.high:g}"
    parts = []
    if has_low:
      parts.append(f"{'above' if self.open_low else 'at least'} {self.low:g}")
    if has_high:
      parts.append(f"{'below' if self.open_high else 'at most'} {self.high:g}")
    return " and ".join(parts)


@dataclasses.dataclass(frozen=True)
class NotEmpty:
  """At least one item."""

  text = "(not empty)"

  def check(self, value: Sized) -> bool:
    """Returns whether a value has items."""
    return len(value) > 0


PositiveInt = Annotated[int, Bounds(1)]
NonNegativeInt = Annotated[int, Bounds(0)]
PositiveFloat = Annotated[float, Bounds(0, open_low=True)]
NonNegativeFloat = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1)]
# All dropped leaves nothing: 1 is excluded.
DropoutRate = Annotated[float, Bounds(0, 1, open_high=True)]
PositiveInts = Annotated[tuple[PositiveInt, ...], NotEmpty()]

_NOUNS = {
    bool: "True or False",
    float: "a finite number",
    int: "an integer",
    str: "a string",
    type(None): "None",
}


def supports(annotation: Any) -> bool:
  """Returns whether `check_value` can read an annotation."""
  origin, args = typing.get_origin(annotation), typing.get_args(annotation)
  if origin is None:
    return annotation is None or annotation in _NOUNS
  if origin is Literal:
    return True
  if origin is Annotated:
    return supports(args[0])
  if origin in (tuple, dict, Mapping, typing.Union, types.UnionType):
    return all(supports(arg) for arg in args if arg is not ...)
  return False


def description(annotation: Any) -> str:
  """Returns what an annotation allows in words, as "an integer of at least 1".

  Args:
    annotation: An annotation that `supports` is true for.
  """
  origin, args = typing.get_origin(annotation), typing.get_args(annotation)
  if origin is Annotated:
    texts = [bound.text for bound in args[1:]]
    texts = [f"of {text}" if text.startswith("at ") else text for text in texts]
    return " ".join([description(args[0]), *texts])
  if origin is Literal:
    return ("one of " if args[1:] else "") + ", ".join(map(repr, args))
  if origin is tuple:
    if args[-1] is ...:
      return f"a list, each item {description(args[0])}"
    if len(set(args)) == 1:
      return f"a list of {len(args)}, each item {description(args[0])}"
    return f"a list of ({'; '.join(map(description, args))})"
  if origin in (dict, Mapping):
    return f"a dict of names, each value {description(args[1])}"
  if origin in (typing.Union, types.UnionType):
    return ", or ".join(map(description, args))
  return _NOUNS[type(None) if annotation is None else annotation]


def check_value(value: Any, annotation: Any, name: str) -> Any:
  """Returns a value in the type of its annotation.

  An integer is a float too, and a list a tuple; True and False are no numbers.
  An annotation that `supports` is not true for (a module, a callable) takes any
  value.

  Args:
    value: The value of an option.
    annotation: Its annotation.
    name: What the message calls the option.

  Raises:
    ValueError: "num_codewords: expected an integer of at least 1, got 0".
  """
  if not supports(annotation):
    return value
  try:
    return _convert(value, annotation)
  except _MISMATCH:
    pass
  raise ValueError(
      f"{name}: expected {description(annotation)}, got {shortened(value)}"
  )


def check_fields(instance: Any) -> None:
  """Checks the fields of a dataclass instance, in its `__post_init__`.

  Raises:
    ValueError: Names the first field with a value that its annotation excludes.
  """
  for field in dataclasses.fields(instance):
    check_value(getattr(instance, field.name), field.type, field.name)


def shortened(value: Any) -> str:
  """Returns a value as messages quote it."""
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."


# What `_convert` raises for a value that its annotation excludes.
_MISMATCH = (ValueError, OverflowError)


def _convert(value, annotation):
  origin, args = typing.get_origin(annotation), typing.get_args(annotation)
  if origin is Annotated:
    value = _convert(value, args[0])
    return _require(value, all(bound.check(value) for bound in args[1:]))
  if origin is Literal:
    # By type as well: True equals 1.
    known = any(type(value) is type(arg) and value == arg for arg in args)
    return _require(value, known)
  if origin in (typing.Union, types.UnionType):
    for arg in args:
      try:
        return _convert(value, arg)
      except _MISMATCH:
        continue
    raise ValueError
  if origin is tuple:
    _require(value, isinstance(value, (tuple, list)))
    items = args[:1] * len(value) if args[-1] is ... else args
    _require(value, len(items) == len(value))
    return tuple(map(_convert, value, items))
  if origin in (dict, Mapping):
    _require(value, isinstance(value, Mapping))
    return {
        _convert(key, args[0]): _convert(item, args[1])
        for key, item in value.items()
    }
  if annotation in (int, float):
    kind = numbers.Integral if annotation is int else numbers.Real
    _require(value, isinstance(value, kind) and not isinstance(value, bool))
    number = annotation(value)
    if annotation is int:
      return _require(number, -_INTEGER_LIMIT <= number < _INTEGER_LIMIT)
    return _require(number, math.isfinite(number))
  return _require(value, isinstance(value, annotation or type(None)))


def _require(value, condition):
  if not condition:
    raise ValueError
  return value
