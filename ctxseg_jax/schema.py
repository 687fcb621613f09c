"""From sections of a config to typed values, by the annotations of the code.

A *target* is what a section configures: a dataclass, a linen module, or a
function with keyword-only options. Its fields are the keys of the section,
their annotations the types, their defaults the defaults, and its docstring
their meaning. `complete` checks a section and adds every default; `make` makes
the value. So a key, a type or a bound is written down once, beside the code
that uses it.

A field whose name is in `parts` holds another target, chosen by `name`:

    parts = {"schedule": {"poly": Poly, "cosine": Cosine}}
    complete([SGD], {"schedule": {"name": "poly"}}, "optim", parts=parts)
"""

import ast
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import difflib
import functools
import inspect
import re
import typing
from typing import Any
from typing import NamedTuple

from ctxseg_jax import bounds
from ctxseg_jax import errors

MISSING = dataclasses.MISSING

Target = Callable[..., Any]
Parts = Mapping[str, Mapping[str, Target]]


class Text(str):
  """A value as it was written on the command line, not converted yet."""


class Option(NamedTuple):
  """One key of a section; its annotation may have bounds, see `bounds`."""

  annotation: Any
  default: Any  # `MISSING` if it has none.


def options(target: Target) -> dict[str, Option]:
  """Returns the options of a target, by name and in order."""
  if dataclasses.is_dataclass(target):
    hints = typing.get_type_hints(target, include_extras=True)
    found = {}
    linen = ("parent", "name") if hasattr(target, "parent") else ()
    for field in dataclasses.fields(target):
      if field.init and field.name not in linen:
        default = field.default
        if field.default_factory is not MISSING:
          default = field.default_factory()
        found[field.name] = Option(hints[field.name], default)
    return found
  return {
      name: Option(p.annotation, MISSING if p.default is p.empty else p.default)
      for name, p in inspect.signature(target).parameters.items()
      if p.kind == p.KEYWORD_ONLY
  }


def meanings(target: Target) -> dict[str, str]:
  """Returns the meaning of each option, from the docstrings of a target."""
  found = {}
  if inspect.isclass(target):
    for base in reversed(target.__mro__[1:]):
      found |= meanings(base) if dataclasses.is_dataclass(base) else {}
  name = None
  inside = False
  for line in inspect.cleandoc(target.__doc__ or "").splitlines():
    entry = re.match(r"  (\w+): (.*)", line)
    if line in ("Attributes:", "Args:"):
      inside = True
    elif inside and entry:
      name = entry[1]
      found[name] = entry[2]
    elif inside and name and line.startswith("    "):
      found[name] += " " + line.strip()
    elif line.strip():
      inside = False
  return found


def lookup(registry: Mapping[str, Any], name: Any, where: str) -> Any:
  """Returns registry[name]; a `UserError` names the key and what there is."""
  if not isinstance(name, str) or name not in registry:
    raise errors.UserError(unknown(registry, name, where))
  return registry[name]


def unknown(registry: Iterable[str], name: Any, where: str) -> str:
  """Returns the message for a name that is not in a registry."""
  return (
      f"{where}: unknown name {name!r}{_suggest(name, registry)};"
      f" known: {', '.join(sorted(registry))}"
  )


def complete(
    targets: Sequence[Target],
    section: Any,
    where: str,
    *,
    given: Mapping[str, Any] | None = None,
    parts: Parts | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns a section with every option, checked, and arguments for `make`.

  Args:
    targets: What the section configures; it has the options of all of them.
    section: A mapping. A `Text` is converted to the type of its option.
    where: Dotted name of the section for messages; "" is the whole config.
    given: Options that are no keys of the section and of none inside it, with
      their values; `MISSING` is for one that keeps its default or comes later.
    parts: The targets to choose from, by the name of the field that holds one.

  Raises:
    UserError: Not a section, an unknown or missing key, a value of another type
      or out of bounds, or a combination that a part refuses. One line, with the
      dotted name of the key.
  """
  given, parts = given or {}, parts or {}
  known = {
      name: option
      for target in targets
      for name, option in options(target).items()
      if name not in given
  }
  check_keys(section, known, where)
  done = {}
  arguments = {name: x for name, x in given.items() if x is not MISSING}
  for name, (annotation, default) in known.items():
    place = join(where, name)
    value = section.get(name, default)
    if isinstance(value, Text) and value in ("None", "none"):
      value = None
    if value is MISSING:
      raise errors.UserError(f"config: missing key '{place}'")
    nested = dict(given=given, parts=parts)
    if name in parts and not (value is None and default is None):
      if value is default:  # An instance, such as `Poly()`.
        value = {"name": name_of(parts[name], value)}
      done[name], arguments[name] = complete_part(
          value, parts[name], place, **nested
      )
    elif dataclasses.is_dataclass(annotation):
      value = {} if value is default else value
      done[name], fields = complete([annotation], value, place, **nested)
      arguments[name] = make(annotation, fields, place)
    elif typing.get_origin(annotation) is dict:
      done[name] = arguments[name] = _convert_items(value, annotation, place)
    else:
      done[name] = arguments[name] = convert(value, annotation, place)
  return done, arguments


def complete_part(
    section: Any, registry: Mapping[str, Target], where: str, **nested: Any
) -> tuple[dict[str, Any], Any]:
  """Returns the complete section of the target that its `name` chooses.

  With it comes the value that it describes. Arguments and errors are those of
  `complete`, with a registry to choose from.
  """
  target = choose(section, "name", registry, where)
  own = own_options(section, "name", [target])
  done, arguments = complete([target], own, where, **nested)
  value = make(target, arguments, where)
  return {"name": str(section["name"])} | done, value


def choose(
    section: Any, key: str, registry: Mapping[str, Target], where: str
) -> Target:
  """Returns the target of a registry that a key of a section names.

  Raises:
    UserError: Not a section, no such key, or an unknown name.
  """
  check_keys(section, section, where)
  place = join(where, key)
  if key not in section:
    raise errors.UserError(
        f"config: missing key '{place}'; known names:"
        f" {', '.join(sorted(registry))}"
    )
  return lookup(registry, section[key], f"config: {place}")


def make(target: Target, arguments: Mapping[str, Any], where: str) -> Any:
  """Returns what a target makes of those arguments that are its options.

  Of a function that is the function with them bound. A `ValueError` becomes a
  `UserError` that names the section or the field.
  """
  known = options(target)
  own = {name: x for name, x in arguments.items() if name in known}
  if inspect.isfunction(target):
    return functools.partial(target, **own)
  try:
    return target(**own)
  except ValueError as e:
    names_field = str(e).partition(":")[0] in known
    text = join(where, str(e)) if names_field else f"{where}: {e}"
    raise errors.UserError(f"config: {text}") from e


def check_keys(section: Any, known: Iterable[str], where: str) -> None:
  """Refuses what is no section, and keys that nothing reads."""
  if not isinstance(section, Mapping):
    raise errors.UserError(
        f"config: {where or 'the config'}: expected a section with keys, got"
        f" {bounds.shortened(section)}"
    )
  for key in section:
    if key not in known:
      raise errors.UserError(
          f"config: unknown key '{join(where, key)}'"
          f"{_suggest(key, known, join(where, ''))};"
          f" known here: {', '.join(sorted(known)) or 'none'}"
      )


def convert(value: Any, annotation: Any, where: str) -> Any:
  """Returns a value in the type of its annotation, or raises a `UserError`.

  `where` is the dotted key of a config, or a flag, `--scales`.
  """
  if isinstance(value, Text):
    try:
      return bounds.check_value(str(value), annotation, where)
    except ValueError:  # Not an option of strings, or not one of its strings.
      value = _literal(value)
      if isinstance(value, str) and annotation == tuple[str, ...]:
        value = value.split(",")  # A list of words needs no quotes.
  try:
    return bounds.check_value(value, annotation, where)
  except ValueError as e:
    place = "" if where.startswith("--") else "config: "
    raise errors.UserError(f"{place}{e}") from e


def override(config: Mapping[str, Any], key: str, text: str) -> dict[str, Any]:
  """Returns a config with the value of one dotted key from the command line.

  A key that leads through something that is no section is a `UserError`.
  """
  changed = section = dict(config)
  *names, last = key.split(".")
  for name in names:
    inner = section.get(name)
    inner = {} if inner is None else inner
    if not isinstance(inner, Mapping):
      raise errors.UserError(
          f"--config.{key}: {name!r} is {bounds.shortened(inner)}, not a"
          " section"
      )
    section[name] = dict(inner)
    section = section[name]
  section[last] = Text(text)
  return changed


def join(where: str, key: str) -> str:
  """Returns the dotted name of a key."""
  return f"{where}.{key}" if where else str(key)


def own_options(
    section: Mapping[str, Any], key: str, targets: Sequence[Target]
) -> dict[str, Any]:
  """Returns a section without the key that chooses its target.

  Where that was chosen on the command line, the options of the config's own
  choice are left out, unless the new target has them too.
  """
  known = {name for target in targets for name in options(target)}
  replaced = isinstance(section[key], Text)
  return {
      name: value
      for name, value in section.items()
      if name != key
      and not (replaced and name not in known and not isinstance(value, Text))
  }


def name_of(registry: Mapping[str, Target], value: Any) -> str:
  """Returns the name by which a registry has the type of a value."""
  return next(name for name, x in registry.items() if x is type(value))


def _convert_items(value, annotation, place):
  """Returns a mapping with its values converted; None values are left out."""
  value = _literal(value) if isinstance(value, Text) else value or {}
  check_keys(value, value, place)
  of_value = typing.get_args(annotation)[1]
  return {
      str(key): convert(x, of_value, join(place, key))
      for key, x in value.items()
      if x is not None and x != "None"
  }


def _literal(text):
  if text.lower() in ("true", "false"):
    return text.lower() == "true"
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return str(text)


def _suggest(name: Any, known: Iterable[str], prefix: str = "") -> str:
  near = difflib.get_close_matches(str(name), list(known), n=1)
  return f", did you mean '{prefix}{near[0]}'?" if near else ""
