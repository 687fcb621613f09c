"""Reads the arrays of a step by name and compares them with a model's."""

from collections.abc import Mapping
import pathlib
from typing import Any

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp

from ctxseg_jax import errors

_NUM_LISTED = 3  # Names per kind in a message that must stay one line.


def restore(
    step_dir: pathlib.Path, target: Any, found: dict[str, str]
) -> tuple[Any, dict[str, Any]]:
  expected = describe(target)
  if found != expected:
    raise errors.UserError(_mismatch_message(step_dir, found, expected))
  leaves, treedef = jax.tree.flatten(target)
  shardings = {
      name: getattr(leaf, "sharding", None)
      for name, leaf in zip(expected, leaves, strict=True)
  }
  arrays, meta = read(step_dir, shardings)
  return jax.tree.unflatten(treedef, [arrays[n] for n in expected]), meta


def read(
    step_dir: pathlib.Path, shardings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads the named arrays (and no other) and the meta.

  The structure is taken from the checkpoint and the arrays are returned by
  name, so that containers without arrays, of which optax has many, need not
  compare equal.
  """
  handler = ocp.PyTreeCheckpointHandler()
  path = epath.Path(step_dir) / "state"
  tree = handler.metadata(path)
  tree = getattr(tree, "tree", tree)

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

  restored = ocp.Checkpointer(handler).restore(
      path,
      args=ocp.args.PyTreeRestore(
          jax.tree_util.tree_map_with_path(item, tree),
          restore_args=jax.tree_util.tree_map_with_path(restore_args, tree),
      ),
  )
  meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(
      epath.Path(step_dir) / "meta"
  )
  leaves = jax.tree_util.tree_leaves_with_path(restored)
  arrays = {_name(key_path): leaf for key_path, leaf in leaves}
  return {name: arrays[name] for name in shardings}, meta


def _name(key_path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(key_path, simple=True, separator="/")


def describe(tree: Any) -> dict[str, str]:
  """Returns e.g. `{"params/stem/kernel": "float32[3,3,3,64]"}`, in order."""
  described = {}
  for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if not hasattr(leaf, "dtype"):
      leaf = np.asarray(leaf)
    shape = ",".join(map(str, leaf.shape))
    described[_name(key_path)] = f"{leaf.dtype}[{shape}]"
  return described


def nest(arrays: Mapping[str, Any]) -> dict[str, Any]:
  nested = {}
  for name, array in arrays.items():
    *parents, last = name.split("/")
    node = nested
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = array
  return nested


def _mismatch_message(
    step_dir: pathlib.Path, found: dict[str, str], expected: dict[str, str]
) -> str:
  names = found.keys() | expected.keys()
  differing = {n for n in names if found.get(n) != expected.get(n)}
  # The optimizer state repeats every difference of the parameters.
  of_model = {n for n in differing if not n.startswith("opt_state/")}
  differing = of_model or differing
  missing = [n for n in expected if n in differing and n not in found]
  unexpected = [n for n in found if n in differing and n not in expected]
  reshaped = [
      f"{n} is {found[n]}, expected {expected[n]}"
      for n in expected
      if n in differing and n in found
  ]
  parts = [
      f"{len(items)} {kind} ({_shorten(items)})"
      for kind, items in (
          ("missing", missing),
          ("unexpected", unexpected),
          ("of another shape or type", reshaped),
      )
      if items
  ]
  return (
      f"{step_dir}: the checkpoint is of another model: {', '.join(parts)}; use"
      " the config it was written with, or another --workdir."
  )


def _shorten(items: list[str]) -> str:
  more = ["..."] if len(items) > _NUM_LISTED else []
  return ", ".join(items[:_NUM_LISTED] + more)
