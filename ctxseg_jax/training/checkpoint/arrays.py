"""Reads the arrays of a step by name and compares them with a model's."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import pathlib
import re
import tempfile
from typing import Any

from etils import epath
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
  return {
      _name(key_path): f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
      for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def listing(step_dir: pathlib.Path) -> dict[str, str]:
  """Returns `describe` of a step; raises what Orbax does, of any kind."""
  with plain_path(step_dir) as path:
    return describe(_structure(path))


def read(
    step_dir: pathlib.Path, shardings: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the arrays of a step by name.

  The structure is taken from the checkpoint, so that containers without arrays,
  of which optax has many, need not compare equal.

  Args:
    step_dir: The step.
    shardings: By name, where an array goes; without one it is a NumPy array.
  """

  def restore_args(key_path, array):
    sharding = shardings.get(_name(key_path))
    if sharding is None:
      return ocp.RestoreArgs(restore_type=np.ndarray, dtype=array.dtype)
    return ocp.ArrayRestoreArgs(
        sharding=sharding, global_shape=array.shape, dtype=array.dtype
    )

  with plain_path(step_dir) as path:
    args = jax.tree_util.tree_map_with_path(restore_args, _structure(path))
    restored = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(
        epath.Path(path) / FOLDER,
        args=ocp.args.PyTreeRestore(restore_args=args),
    )
  leaves = jax.tree_util.tree_leaves_with_path(restored)
  return {_name(key_path): leaf for key_path, leaf in leaves}


def fill(step_dir: pathlib.Path, target: Any) -> Any:
  """Returns a target of `Checkpoints.restore` with the arrays of a step.

  Raises:
    UserError: They are not of one model.
  """
  found, expected = listing(step_dir), describe(target)
  if found != expected:
    raise errors.UserError(
        f"{step_dir}: the checkpoint is of another model:"
        f" {_differences(found, expected)}; use the config it was written with,"
        " or another --workdir."
    )
  leaves, treedef = jax.tree.flatten(target)
  shardings = [getattr(leaf, "sharding", None) for leaf in leaves]
  arrays = read(step_dir, dict(zip(expected, shardings, strict=True)))
  return jax.tree.unflatten(treedef, [arrays[name] for name in expected])


def _structure(path: pathlib.Path) -> Any:
  tree = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path) / FOLDER)
  return getattr(tree, "tree", tree)


def _name(key_path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(key_path, simple=True, separator="/")


def _differences(found: dict[str, str], expected: dict[str, str]) -> str:
  names = [n for n in expected | found if found.get(n) != expected.get(n)]
  # The optimizer state repeats every difference of the parameters.
  names = [n for n in names if not n.startswith("opt_state/")] or names
  kinds = {
      "missing": [n for n in names if n not in found],
      "unexpected": [n for n in names if n not in expected],
      "of another shape or type": [
          f"{n} is {found[n]}, expected {expected[n]}"
          for n in names
          if n in found and n in expected
      ],
  }
  return ", ".join(
      f"{len(items)} {kind} ({', '.join(items[:_NUM_LISTED])}"
      f"{', ...' * (len(items) > _NUM_LISTED)})"
      for kind, items in kinds.items()
      if items
  )
