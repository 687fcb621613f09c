"""Turns sections of a config into calls, and typos into one clear line."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import difflib
import functools
import inspect
from typing import Any

from ctxseg_jax import errors


def lookup(registry: Mapping[str, Any], name: str, where: str) -> Any:
  """Returns registry[name]; a `UserError` naming the key says what exists."""
  if name not in registry:
    raise errors.UserError(
        f"{where}: unknown name {name!r}{_suggest(name, registry)};"
        f" known: {', '.join(sorted(registry))}"
    )
  return registry[name]


def check_keys(
    section: Mapping[str, Any],
    known: Iterable[str],
    where: str,
    required: Iterable[str] = (),
) -> None:
  """Refuses keys that nothing reads, and missing ones.

  Args:
    section: A section of the config.
    known: The keys that are read.
    where: Dotted name of the section, for the message; "" is the whole config.
    required: Keys without a default.

  Raises:
    UserError: Names the first offending key and the nearest known one.
  """
  known = sorted(set(known) | set(required))
  prefix = f"{where}." if where else ""
  for key in section:
    if key not in known:
      raise errors.UserError(
          f"config: unknown key '{prefix}{key}'{_suggest(key, known, prefix)};"
          f" known here: {', '.join(known)}"
      )
  for key in required:
    if key not in section:
      raise errors.UserError(f"config: missing key '{prefix}{key}'")


def check_choice(name: str, value: Any, known: Iterable[Any]) -> None:
  """Refuses a value that is none of the known ones.

  For the `__post_init__` of what `build` builds: it says where in the config.

  Raises:
    ValueError: Names the field, the value and the known ones.
  """
  if value not in known:
    raise ValueError(f"Unknown {name} {value!r}; known: {sorted(known)}.")


def build(
    target: Callable[..., Any],
    section: Mapping[str, Any],
    where: str,
    **common: Any,
) -> Any:
  """Calls `target` with a section of the config as keyword arguments.

  Args:
    target: A class or function with named parameters.
    section: Its arguments; the key "name" is the registry's and is dropped.
    where: Dotted name of the section, for messages.
    **common: Arguments that do not come from the section. Those `target` has
      no parameter for are dropped.

  Returns:
    What `target` returns.

  Raises:
    UserError: A key that is no parameter, of another type than the
      parameter's default, or a value that `target` refuses.
  """
  parameters = {
      name: p
      for name, p in inspect.signature(target).parameters.items()
      # Linen's own fields are not for configs.
      if name not in ("self", "parent", "name")
  }
  arguments = {k: v for k, v in section.items() if k != "name"}
  check_keys(arguments, set(parameters) - set(common), where)
  for key, value in arguments.items():
    _check_type(value, parameters[key].default, f"{where}.{key}")
  common = {k: v for k, v in common.items() if k in parameters}
  try:
    return target(**arguments, **common)
  except (TypeError, ValueError) as e:
    raise errors.UserError(f"config: {where}: {e}") from e


def bind(
    function: Callable[..., Any],
    section: Mapping[str, Any],
    where: str,
    reserved: Iterable[str] = (),
) -> Callable[..., Any]:
  """Returns a function with a section of the config as keyword arguments.

  Args:
    function: A function whose options are keyword-only.
    section: Its options.
    where: Dotted name of the section, for messages.
    reserved: Keyword-only parameters that the caller passes.

  Raises:
    UserError: A key that is no option, or of another type than its default.
  """
  parameters = inspect.signature(function).parameters
  options = {
      name: p.default
      for name, p in parameters.items()
      if p.kind == p.KEYWORD_ONLY and name not in reserved
  }
  check_keys(section, options, where)
  for key, value in section.items():
    _check_type(value, options[key], f"{where}.{key}")
  return functools.partial(function, **section)


def _check_type(value: Any, default: Any, where: str) -> None:
  if default is inspect.Parameter.empty or default is None or value is None:
    return
  expected = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(
      type(default)
  )
  if expected is None:
    return
  wrong_bool = isinstance(value, bool) and bool not in expected
  if wrong_bool or not isinstance(value, expected):
    raise errors.UserError(
        f"config: {where}: expected {type(default).__name__},"
        f" got {type(value).__name__} {value!r}"
    )


def _suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
  near = difflib.get_close_matches(str(name), list(known), n=1)
  return f", did you mean '{prefix}{near[0]}'?" if near else ""
