"""Reads pickles without running anything that they ask for.

`pickle.Unpickler` does the reading, with a class of ours for every name that
only keeps what it is called with: nothing is imported or executed, and the
caller picks out the few names that it knows. A scan of the instructions comes
first, and refuses what would take memory or time without bound.
"""

from collections.abc import Callable
from collections.abc import Iterable
import io
import pickle
import pickletools
from typing import Any
from typing import BinaryIO

# A large network with the state of its optimizer has some hundred thousand.
# Each can cost a hundred times the byte that it takes in the file.
MOST_INSTRUCTIONS = 1_000_000

_MOST_NAMES = 1000  # A class takes 2 kB; real files have less than a hundred.

# Keys that are neither text, bytes, short numbers nor objects: a file can hold
# tuples that take forever to hash, and any number of keys with the same hash.
_MOST_ODD_KEYS = 1000
_LARGEST_KEY = 16  # In values.
_LARGEST_NUMBER = 2**60  # Smaller ones are their own hash.

_DAMAGE = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError)


class Noted:
  """An object that a pickle asks for, of a name that is not looked up.

  Attributes:
    origin: Module and name; None of what a call returned.
    args: What it was called with.
    state: What it is to be restored from.
    items: What it is to hold under which key.
    elements: What it is to be extended by.
  """

  __slots__ = ("args", "state", "items", "elements")
  origin: tuple[str, str] | None = None

  def __new__(cls, *args: Any, **kwargs: Any) -> "Noted":
    self = super().__new__(cls)
    self.args, self.state = args, kwargs or None
    self.items, self.elements = {}, []
    return self

  def __call__(self, *args: Any) -> "Noted":
    return Noted(*args)

  def __setstate__(self, state: Any) -> None:
    self.state = state

  def __setitem__(self, key: Any, value: Any) -> None:
    self.items[key] = value

  def extend(self, values: Iterable[Any]) -> None:
    self.elements.extend(values)

  def add(self, value: Any) -> None:
    self.elements.append(value)


class Outside:
  """Something kept outside the pickle, under an id."""

  __slots__ = ("id",)

  def __init__(self, id: Any):
    self.id = id


def read(
    data: bytes | BinaryIO, outside: Callable[[Any], Any] = Outside
) -> Any:
  """Reads a pickle.

  Args:
    data: A pickle of any protocol, or a file that stands where one begins, and
      then where it ends.
    outside: Makes what stands for something kept outside, of its id.

  Returns:
    Plain values, with `Noted`, its subclasses and `Outside` among them. Strings
    of Python 2 come as bytes.

  Raises:
    ValueError: It is cut short or damaged, or asks for too much.
  """
  file = io.BytesIO(data) if isinstance(data, bytes) else data
  start = file.tell()
  try:
    _scan(file)
    length = file.tell() - start
    file.seek(start)
    return _Reader(io.BytesIO(file.read(length)), outside).load()
  except (*_DAMAGE, pickle.UnpicklingError) as error:
    reason = f"{type(error).__name__}: {str(error)[:100]}"
    raise ValueError(f"damaged pickle ({reason})") from error


class _Reader(pickle.Unpickler):

  def __init__(self, file: BinaryIO, outside: Callable[[Any], Any]):
    super().__init__(file, encoding="bytes")
    self._outside = outside
    self._classes: dict[tuple[str, str], type[Noted]] = {}

  def find_class(self, module: str, name: str) -> type[Noted]:
    origin = (module, name)
    if origin not in self._classes:
      if len(self._classes) == _MOST_NAMES:
        raise ValueError(f"more than {_MOST_NAMES} names of classes")
      members = {"__slots__": (), "origin": origin}
      self._classes[origin] = type("Noted", (Noted,), members)
    return self._classes[origin]

  def persistent_load(self, pid: Any) -> Any:
    return self._outside(pid)


_MARKED = pickletools.markobject
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_NESTING = frozenset(("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"))
_IN_PLACE = frozenset(
    ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
)
# Where the keys are among what an instruction takes off the stack.
_KEYS = {
    "SETITEM": slice(1, None, 2),
    "SETITEMS": slice(1, None, 2),
    "DICT": slice(0, None, 2),
    "ADDITEMS": slice(1, None),
    "FROZENSET": slice(0, None),
}


def _scan(file: BinaryIO) -> None:
  """Refuses a pickle that costs far more to read than it is long.

  Follows the stack, where a number stands for each value: how many values
  there are to hash when it becomes a key.
  """
  stack, below, memo, num_odd = [], [], {}, 0
  for count, (code, value, _) in enumerate(pickletools.genops(file)):
    if count >= MOST_INSTRUCTIONS:
      raise ValueError(f"more than {MOST_INSTRUCTIONS} instructions")
    if code.name in _GETS:
      stack.append(memo[value])
    elif code.name in _PUTS:
      # The unpickler makes room for all numbers below.
      if value is not None and value > count:
        raise ValueError(f"memo number {value} with nothing stored below it")
      memo[len(memo) if value is None else value] = stack[-1]
    elif code.name == "MARK":
      below.append(stack)
      stack = []
    elif code.name == "DUP":
      stack.append(stack[-1])
    else:
      before, taken = code.stack_before, []
      if _MARKED in before or (code.name == "POP" and not stack):
        before = before[: before.index(_MARKED) if _MARKED in before else 0]
        taken, stack = stack, below.pop()
      if len(before) > len(stack):
        raise IndexError("too few values")
      split = len(stack) - len(before)
      taken, stack[split:] = stack[split:] + taken, []
      for size in taken[_KEYS.get(code.name, slice(0))]:
        num_odd += size > 1
        if size > _LARGEST_KEY or num_odd > _MOST_ODD_KEYS:
          raise ValueError("keys that take long to compare")
      if code.stack_after:
        stack.append(_size(code.name, value, taken))


def _size(name: str, value: Any, taken: list[int]) -> int:
  if name in _IN_PLACE:
    return taken[0]
  if name in _NESTING:
    return min(1 + sum(taken), _LARGEST_KEY + 1)
  return 1 + (isinstance(value, int) and abs(value) >= _LARGEST_NUMBER)


def describe(value: Any) -> str:
  """Returns in a few words, on one line, what a value of a pickle is."""
  if isinstance(value, type):
    text = ".".join(value.origin)
    text = text if len(text) <= 100 else f"{text[:100]}..."
    return text if text.isprintable() else ascii(text)
  if not isinstance(value, Noted):
    return _DESCRIPTIONS[type(value)]
  if value.origin is None:
    return "what a call returned"
  return f"an object of {describe(type(value))}"


_DESCRIPTIONS = {
    type(None): "nothing",
    **dict.fromkeys((bool, int, float), "a number"),
    str: "text",
    **dict.fromkeys((bytes, bytearray, memoryview), "bytes"),
    tuple: "a tuple",
    list: "a list",
    **dict.fromkeys((set, frozenset), "a set"),
    dict: "a dictionary",
    Outside: "something kept outside",
}
