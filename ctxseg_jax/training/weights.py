"""The trained network of a work dir, in the forms that others take it in."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import flax

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.pretrained import loading
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import workdir as workdir_lib
from ctxseg_jax.training.checkpoint import folders


def variables(state: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the variables of what `checkpoint.load` read of a network."""
  # Empty collections and an average that is None leave no trace on disk.
  return {
      "params": state.get("average") or state["params"],
      **state.get("model_state", {}),
  }


def contents(init_from: loading.InitFrom) -> loading.Contents | None:
  """Returns what a work dir would have as an exported file; None for a file.

  It is the best checkpoint, or the last of a run that was never evaluated.

  Raises:
    UserError: A folder that is no work dir, or without an intact checkpoint.
  """
  if not init_from.path:  # In a package.
    return None
  path = files.local_path(init_from.path, "config: init_from.path")
  if not path.is_dir():
    return None
  if init_from.source != "ctxseg_jax":
    raise errors.UserError(
        f"config: init_from.path: {files.printable(path)} is a folder; expected"
        f" a file of {init_from.source}, or init_from.source='ctxseg_jax' with"
        " a work dir"
    )
  return _read(path)


def _read(path: pathlib.Path) -> loading.Contents:
  data = workdir_lib.read_config(path).get("data") or {}
  kind = "best" if folders.steps(path / "best") else "checkpoints"
  state, _ = checkpoint.load(path / kind)
  tensors = flax.traverse_util.flatten_dict(variables(state), sep="/")
  return tensors, {
      key: json.dumps(data[key]) for key in ("mean", "std") if key in data
  }
