"""From sections of a config to typed values, by the annotations of the code.

A *target* is what a section configures: a dataclass, a linen module, or a
function with keyword-only options. Its fields are the keys of the section,
their annotations the types, their defaults the defaults, and its docstring
their meaning. `complete` checks a section and adds every default; `build` makes
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

from ctxseg_jax import bounds
from ctxseg_jax import errors

MISSING = dataclasses.MISSING

Target = Callable[..., Any]
Parts = Mapping[str, Mapping[str, Target]]


class Text(str):
  """A value as it was written on the command line, not converted yet."""


@dataclasses.dataclass(frozen=True)
class Option:
  """One key of a section.

  Attributes:
    annotation: Its type, perhaps with bounds.
    default: Its default; `MISSING` if it has none.
  """

  annotation: Any
  default: Any


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
    given: Iterable[str] = (),
    parts: Parts | None = None,
) -> dict[str, Any]:
  """Returns a section with every option, checked and of its type.

  Args:
    targets: What the section configures; it has the options of all of them.
    section: A mapping. A `Text` is converted to the type of its option.
    where: Dotted name of the section for messages; "" is the whole config.
    given: Names of options that the caller provides: no keys of the section.
    parts: The targets to choose from, by the name of the field that holds one.

  Raises:
    UserError: Not a section, an unknown or missing key, or a value of another
      type or out of bounds. One line, with the dotted name of the key.
  """
  parts = parts or {}
  known = {}
  for target in targets:
    known |= options(target)
  for name in given:
    known.pop(name, None)
  check_keys(section, known, where)
  done = {}
  for name, option in known.items():
    place = join(where, name)
    value = section.get(name, option.default)
    if isinstance(value, Text) and value in ("None", "none"):
      value = None
    if value is MISSING:
      raise errors.UserError(f"config: missing key '{place}'")
    nested = dict(given=given, parts=parts)
    if name in parts:
      if value is None and option.default is None:
        done[name] = None
      else:
        if value is option.default:  # An instance, such as `Poly()`.
          value = {"name": name_of(parts[name], value)}
        done[name] = complete_part(value, parts[name], place, **nested)
    elif dataclasses.is_dataclass(option.annotation):
      value = {} if value is option.default else value
      done[name] = complete([option.annotation], value, place, **nested)
    elif typing.get_origin(option.annotation) is dict:
      done[name] = _complete_mapping(value, option.annotation, place)
    elif bounds.supports(option.annotation):
      done[name] = convert(value, option.annotation, place)
    else:
      done[name] = value
  return done


def build(
    target: Target,
    section: Mapping[str, Any],
    where: str,
    *,
    given: Mapping[str, Any] | None = None,
    parts: Parts | None = None,
) -> Any:
  """Returns the value that a completed section describes.

  Args:
    target: What to make; for a function, it with its options bound.
    section: As `complete` returns it; keys of other targets are ignored.
    where: Dotted name of the section, for messages.
    given: Options that do not come from the config, for every target that has
      them.
    parts: As for `complete`.

  Raises:
    UserError: A combination of values that the target refuses.
  """
  given, parts = given or {}, parts or {}
  arguments = {}
  for name, option in options(target).items():
    place = join(where, name)
    nested = dict(given=given, parts=parts)
    if name in given:
      arguments[name] = given[name]
    elif name not in section:
      continue
    elif name in parts and section[name] is not None:
      chosen = lookup(parts[name], section[name]["name"], place)
      arguments[name] = build(chosen, section[name], place, **nested)
    elif dataclasses.is_dataclass(option.annotation):
      value = build(option.annotation, section[name], place, **nested)
      arguments[name] = value
    else:
      arguments[name] = section[name]
  if inspect.isfunction(target):
    return functools.partial(target, **arguments)
  try:
    return target(**arguments)
  except ValueError as e:
    text = str(e)
    if text.partition(":")[0] in options(target):  # It names the field.
      raise errors.UserError(f"config: {join(where, text)}") from e
    raise errors.UserError(f"config: {where}: {text}") from e


def check_keys(section: Any, known: Iterable[str], where: str) -> None:
  """Refuses what is no section, and keys that nothing reads.

  Raises:
    UserError: Names the first unknown key and the nearest known one.
  """
  if not isinstance(section, Mapping):
    raise errors.UserError(
        f"config: {where or 'the config'}: expected a section with keys, got"
        f" {_shorten(section)}"
    )
  known = sorted(known)
  for key in section:
    if key not in known:
      raise errors.UserError(
          f"config: unknown key '{join(where, key)}'"
          f"{_suggest(key, known, join(where, ''))};"
          f" known here: {', '.join(known) or 'none'}"
      )


def convert(value: Any, annotation: Any, where: str) -> Any:
  """Returns a value as its annotation wants it.

  Raises:
    UserError: It is of another type or out of bounds.
  """
  if isinstance(value, Text):
    value = _from_text(value, annotation)
  try:
    return bounds.check_value(value, annotation, where)
  except ValueError as e:
    raise errors.UserError(f"config: {e}") from e


def override(config: Mapping[str, Any], key: str, text: str) -> dict[str, Any]:
  """Returns a config with the value of one dotted key from the command line.

  Raises:
    UserError: The key leads through something that is no section.
  """
  first, _, rest = key.partition(".")
  changed = dict(config)
  if not rest:
    changed[first] = Text(text)
    return changed
  section = changed.get(first)
  if section is None:
    section = {}
  if not isinstance(section, Mapping):
    raise errors.UserError(
        f"--config.{key}: {first!r} is {_shorten(section)}, not a section"
    )
  try:
    changed[first] = override(section, rest, text)
  except errors.UserError as e:
    raise errors.UserError(str(e).replace(rest, key, 1)) from e
  return changed


def join(where: str, key: str) -> str:
  """Returns the dotted name of a key."""
  return f"{where}.{key}" if where else str(key)


def complete_part(
    section: Any,
    registry: Mapping[str, Target],
    where: str,
    *,
    given: Iterable[str] = (),
    parts: Parts | None = None,
) -> dict[str, Any]:
  """Returns the complete section of the target that its `name` chooses.

  Args:
    section: A mapping with a `name`, a key of `registry`.
    registry: The targets to choose from.
    where: As for `complete`, and so are the others.

  Raises:
    UserError: As `complete`; no name, or an unknown one.
  """
  if not isinstance(section, Mapping):
    check_keys(section, (), where)
  if "name" not in section:
    raise errors.UserError(
        f"config: missing key '{join(where, 'name')}'; known names:"
        f" {', '.join(sorted(registry))}"
    )
  target = lookup(registry, section["name"], f"config: {join(where, 'name')}")
  options_of_part = own_options(section, "name", [target])
  return {"name": str(section["name"])} | complete(
      [target], options_of_part, where, given=given, parts=parts
  )


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


def _complete_mapping(value, annotation, place):
  """Returns a mapping with its values checked; None values are left out."""
  value = value or {}
  if isinstance(value, Text):
    value = _literal(value)
  if not isinstance(value, Mapping):
    check_keys(value, (), place)
  of_value = typing.get_args(annotation)[1]
  return {
      str(key): convert(x, of_value, join(place, key))
      for key, x in value.items()
      if x is not None and x != "None"
  }


def _from_text(text, annotation):
  """Returns what a flag's text stands for, given the type it should have."""
  if text in ("None", "none"):
    return None
  if _is_string(annotation):
    return str(text)
  return _literal(text)


def _literal(text):
  if text.lower() in ("true", "false"):
    return text.lower() == "true"
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return str(text)


def _is_string(annotation):
  """Returns whether an annotation is of strings, None and bounds aside."""
  if annotation is str:
    return True
  if typing.get_origin(annotation) is typing.Literal:
    return all(isinstance(x, str) for x in typing.get_args(annotation))
  if typing.get_origin(annotation) in (tuple, list, dict):
    return False
  return any(map(_is_string, typing.get_args(annotation)))


def _suggest(name: Any, known: Iterable[str], prefix: str = "") -> str:
  near = difflib.get_close_matches(str(name), list(known), n=1)
  return f", did you mean '{prefix}{near[0]}'?" if near else ""


def _shorten(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."
