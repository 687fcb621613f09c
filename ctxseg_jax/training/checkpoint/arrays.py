"""Reads the arrays of a step by name and compares them with a model's."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import pathlib
import re
import tempfile
from typing import Any

from etils import epath
import flax
import jax
import numpy as np
import orbax.checkpoint as ocp

from ctxseg_jax import errors

FOLDER = "state"  # Within a step; what is in there is Orbax's.

_NUM_LISTED = 3  # Names per kind in a message that must stay one line.


@contextlib.contextmanager
def plain_path(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path to a directory that Orbax and TensorStore read literally.

  Orbax takes brackets for a glob, and then merges nothing without an error;
  TensorStore takes a backslash for a slash. A link of a plain name leads
  around both.
  """
  if re.fullmatch(r"[\w./ =+,@:~-]*", str(directory), re.ASCII):
    yield directory
    return
  with tempfile.TemporaryDirectory(prefix="ctxseg_") as folder:
    link = pathlib.Path(folder) / "checkpoints"
    link.symlink_to(directory)
    yield link


def describe(tree: Any) -> dict[str, str]:
  """Returns e.g. `{"params/stem/kernel": "float32[3,3,3,64]"}`, in order."""
  described = {}
  for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if not hasattr(leaf, "dtype"):
      leaf = np.asarray(leaf)
    shape = ",".join(map(str, leaf.shape))
    described[_name(key_path)] = f"{leaf.dtype}[{shape}]"
  return described


def entries(tree: Any) -> list[str]:
  """Returns the names of a tree's entries, also of those without arrays."""
  found = jax.tree_util.tree_leaves_with_path(tree, lambda x: x is not tree)
  return [_name(key_path) for key_path, _ in found]


def nest(arrays: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
  """Returns nested dicts of arrays by name, which have all the entries."""
  nested = flax.traverse_util.unflatten_dict(dict(arrays), sep="/")
  return {name: nested.get(name, {}) for name in names}


def listing(step_dir: pathlib.Path) -> dict[str, str]:
  """Returns `describe` of the arrays that can be read from a step.

  Raises:
    Exception: Of any kind, as Orbax has no base class, if one cannot be.
  """
  with plain_path(step_dir) as path:
    return describe(_structure(path))


def read(
    step_dir: pathlib.Path, shardings: Mapping[str, Any]
) -> dict[str, Any]:
  """Reads the arrays that are named, and no other.

  The structure is taken from the checkpoint and the arrays are returned by
  name, so that containers without arrays, of which optax has many, need not
  compare equal.

  Args:
    step_dir: The step.
    shardings: By name, where the array goes; None makes it a NumPy array.
  """

  def item(key_path, array):
    if _name(key_path) not in shardings:
      return ocp.PLACEHOLDER
    return jax.ShapeDtypeStruct(array.shape, array.dtype)

  def restore_args(key_path, array):
    sharding = shardings.get(_name(key_path))
    if sharding is None:
      return ocp.RestoreArgs(restore_type=np.ndarray, dtype=array.dtype)
    return ocp.ArrayRestoreArgs(
        sharding=sharding, global_shape=array.shape, dtype=array.dtype
    )

  with plain_path(step_dir) as path:
    tree = _structure(path)
    restored = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(
        epath.Path(path) / FOLDER,
        args=ocp.args.PyTreeRestore(
            jax.tree_util.tree_map_with_path(item, tree),
            restore_args=jax.tree_util.tree_map_with_path(restore_args, tree),
        ),
    )
  leaves = jax.tree_util.tree_leaves_with_path(restored)
  arrays = {_name(key_path): leaf for key_path, leaf in leaves}
  return {name: arrays[name] for name in shardings}


def fill(step_dir: pathlib.Path, target: Any, found: dict[str, str]) -> Any:
  """Returns the target with the arrays of a step, where its shardings say.

  Args:
    step_dir: The step.
    target: A pytree of arrays or `jax.ShapeDtypeStruct`s.
    found: `describe` of the part of the checkpoint that the target is to be.

  Raises:
    UserError: They are not of one model.
  """
  expected = describe(target)
  if found != expected:
    raise errors.UserError(_mismatch_message(step_dir, found, expected))
  leaves, treedef = jax.tree.flatten(target)
  arrays = read(
      step_dir,
      {
          name: getattr(leaf, "sharding", None)
          for name, leaf in zip(expected, leaves, strict=True)
      },
  )
  return jax.tree.unflatten(treedef, list(arrays.values()))


def _structure(path: pathlib.Path) -> Any:
  tree = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path) / FOLDER)
  return getattr(tree, "tree", tree)


def _name(key_path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(key_path, simple=True, separator="/")


def _mismatch_message(
    step_dir: pathlib.Path, found: dict[str, str], expected: dict[str, str]
) -> str:
  differing = [
      name for name in expected | found if found.get(name) != expected.get(name)
  ]
  # The optimizer state repeats every difference of the parameters.
  of_model = [n for n in differing if not n.startswith("opt_state/")]
  differing = of_model or differing
  kinds = {
      "missing": [n for n in differing if n not in found],
      "unexpected": [n for n in differing if n not in expected],
      "of another shape or type": [
          f"{n} is {found[n]}, expected {expected[n]}"
          for n in differing
          if n in found and n in expected
      ],
  }
  parts = []
  for kind, items in kinds.items():
    if items:
      listed = items[:_NUM_LISTED] + ["..."] * (len(items) > _NUM_LISTED)
      parts.append(f"{len(items)} {kind} ({', '.join(listed)})")
  return (
      f"{step_dir}: the checkpoint is of another model: {', '.join(parts)}; use"
      " the config it was written with, or another --workdir."
  )
