"""What a pickle says, without doing any of it.

To unpickle is to run what the file asks for. Here its instructions are only
followed on a stack of plain values: a name of Python stays a name, a call of it
is noted and not made, so that nothing is imported, looked up or executed
whatever the file holds. Who reads it picks out the few calls it knows.
"""

from collections.abc import Callable
import dataclasses
import pickletools
from typing import Any
from typing import BinaryIO

# Some hundred thousand are needed for a large network with the state of its
# optimizer. Each can cost a hundred times the byte it takes in the file.
MOST_INSTRUCTIONS = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
  """A function or class that a pickle names."""

  module: str
  name: str


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Call:
  """A call that a pickle asks for, and what it does with the result.

  Attributes:
    function: What to call, usually a `Global`.
    args: The arguments, usually a tuple.
    state: What the result is to be restored from.
    items: What the result is to hold under which key.
    elements: What the result is to be extended by.
  """

  function: Any
  args: Any
  state: Any = None
  items: dict[Any, Any] = dataclasses.field(default_factory=dict)
  elements: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Outside:
  """Something kept outside the pickle, under an id."""

  id: Any


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Key:
  """A key of a dictionary that is neither text nor bytes.

  Equal to nothing but itself: a file can hold keys that take forever to hash,
  or all have one hash.
  """

  value: Any


def read(
    data: bytes | BinaryIO, outside: Callable[[Any], Any] = Outside
) -> Any:
  """Reads a pickle.

  Args:
    data: A pickle of any protocol; what follows its end is ignored. A file is
      read from where it stands, and stands after the end then.
    outside: Makes what stands for something kept outside, of its id.

  Returns:
    Plain values, with `Global`, `Call`, `Outside` and `Key` among them. Strings
    of Python 2 come as bytes, sets as lists.

  Raises:
    ValueError: It is cut short or damaged, or asks for too much.
  """
  machine = _Machine(outside)
  try:
    for count, (instruction, value, _) in enumerate(pickletools.genops(data)):
      if count >= MOST_INSTRUCTIONS:
        raise ValueError(f"more than {MOST_INSTRUCTIONS} instructions")
      machine.follow(instruction.name, value)
    return machine.stack[-1]
  except (ArithmeticError, LookupError, TypeError) as error:
    raise ValueError(
        f"damaged pickle ({type(error).__name__}: {str(error)[:100]})"
    ) from error


def describe(value: Any) -> str:
  """Returns in a few words, on one line, what a value of a pickle is."""
  if isinstance(value, Global):
    return _quote(f"{value.module}.{value.name}")
  if isinstance(value, Call):
    if isinstance(value.function, Global):
      return f"an object of {describe(value.function)}"
    return "what a call returned"  # Of what a call returned, and so on.
  return _DESCRIPTIONS[type(value)]


_DESCRIPTIONS = {
    type(None): "nothing",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "text",
    bytes: "bytes",
    bytearray: "bytes",
    tuple: "a tuple",
    list: "a list",
    dict: "a dictionary",
    Outside: "something kept outside",
    Key: "a key",
}


def _quote(text: str) -> str:
  text = text if len(text) <= 100 else f"{text[:100]}..."
  return text if text.isprintable() else ascii(text)


class _Machine:
  """The stack of values, the marks on it, and what was memorised.

  Attributes:
    stack: Values since the last mark.
    below: The stacks under it, one per mark.
    memo: Values to be used again, by number.
    outside: Makes what stands for something kept outside.
  """

  def __init__(self, outside: Callable[[Any], Any]):
    self.stack: list[Any] = []
    self.below: list[list[Any]] = []
    self.memo: dict[int, Any] = {}
    self.outside = outside

  def follow(self, name: str, value: Any) -> None:
    """Follows one instruction, named as `pickletools` does."""
    if name in _CONSTANTS:
      self.stack.append(value)
    elif name in _FOLLOWED:
      _FOLLOWED[name](self, value)
    elif name not in _IGNORED:
      raise ValueError(f"instruction {name}, which no weights or data need")

  def pop_mark(self) -> list[Any]:
    values, self.stack = self.stack, self.below.pop()
    return values

  def mark(self, _: Any) -> None:
    self.below.append(self.stack)
    self.stack = []

  def pop(self, _: Any) -> None:
    if self.stack:
      self.stack.pop()
    else:
      self.pop_mark()

  def memorise(self, number: int | None) -> None:
    self.memo[len(self.memo) if number is None else number] = self.stack[-1]

  def recall(self, number: int) -> None:
    self.stack.append(self.memo[number])

  def replace(self, count: int, make: Callable[..., Any]) -> None:
    """Puts what `make` returns in the place of the last `count` values."""
    if len(self.stack) < count:
      raise IndexError("too few values")
    start = len(self.stack) - count
    self.stack[start:] = [make(*self.stack[start:])]

  def collect(self, make: Callable[[list[Any]], Any]) -> None:
    """Puts what `make` returns in the place of the values after the mark."""
    values = self.pop_mark()
    self.stack.append(make(values))

  def extend(self, values: list[Any]) -> None:
    target = self.stack[-1]
    if isinstance(target, Call):
      target = target.elements
    if type(target) is not list:
      raise TypeError(f"{describe(target)} is extended")
    target.extend(values)

  def set_items(self, values: list[Any]) -> None:
    target = self.stack[-1]
    if isinstance(target, Call):
      target = target.items
    if type(target) is not dict:
      raise TypeError(f"{describe(target)} is given items")
    target.update(_pair(values))

  def restore(self) -> None:
    state = self.stack.pop()
    target = self.stack[-1]
    if not isinstance(target, Call):
      raise TypeError(f"{describe(target)} is given a state")
    target.state = state


def _pair(values: list[Any]) -> dict[Any, Any]:
  return {
      key if type(key) in (str, bytes) else Key(key): value
      for key, value in zip(values[::2], values[1::2], strict=True)
  }


def _name(module: Any, name: Any) -> Global:
  if not isinstance(module, str) or not isinstance(name, str):
    raise TypeError("a name that is no text")
  return Global(module, name)


_CONSTANTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 UNICODE SHORT_BINUNICODE "
    "BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 FLOAT "
    "BINFLOAT".split()
)

_IGNORED = frozenset(("PROTO", "FRAME", "STOP"))

# The names are those of `pickletools`, which describes each. Left out are the
# registry of extensions and buffers kept outside.
_FOLLOWED: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_SET": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "STRING": lambda m, text: m.stack.append(text.encode("latin-1")),
    "BINSTRING": lambda m, text: m.stack.append(text.encode("latin-1")),
    "SHORT_BINSTRING": lambda m, text: m.stack.append(text.encode("latin-1")),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "PUT": _Machine.memorise,
    "BINPUT": _Machine.memorise,
    "LONG_BINPUT": _Machine.memorise,
    "MEMOIZE": _Machine.memorise,
    "GET": _Machine.recall,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "TUPLE1": lambda m, _: m.replace(1, lambda *values: values),
    "TUPLE2": lambda m, _: m.replace(2, lambda *values: values),
    "TUPLE3": lambda m, _: m.replace(3, lambda *values: values),
    "TUPLE": lambda m, _: m.collect(tuple),
    "LIST": lambda m, _: m.collect(list),
    "FROZENSET": lambda m, _: m.collect(list),
    "DICT": lambda m, _: m.collect(_pair),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "GLOBAL": lambda m, text: m.stack.append(_name(*text.split(" ", 1))),
    "STACK_GLOBAL": lambda m, _: m.replace(2, _name),
    "REDUCE": lambda m, _: m.replace(2, Call),
    "NEWOBJ": lambda m, _: m.replace(2, Call),
    "NEWOBJ_EX": lambda m, _: m.replace(
        3, lambda cls, args, kw: Call(cls, args, kw)
    ),
    "OBJ": lambda m, _: m.collect(lambda v: Call(v[0], tuple(v[1:]))),
    "INST": lambda m, text: m.collect(
        lambda v: Call(_name(*text.split(" ", 1)), tuple(v))
    ),
    "BUILD": lambda m, _: m.restore(),
    "PERSID": lambda m, text: m.stack.append(m.outside(text)),
    "BINPERSID": lambda m, _: m.replace(1, m.outside),
}
