"""A network here and the same one in PyTorch, with the same weights."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import tempfile
from typing import Any
from typing import NamedTuple

import numpy as np

from benchmarks import networks
from benchmarks import ours
from benchmarks import peer as peer_lib
from benchmarks import sizes
from benchmarks import timing
from ctxseg_jax import errors
from ctxseg_jax import experiment


class Pair(NamedTuple):
  """Both sides of a comparison.

  Attributes:
    side: Ours.
    peers: Processes with the network in PyTorch, by mode.
    row: What is known of them, for the result.
  """

  side: ours.Side
  peers: dict[str, peer_lib.Peer]
  row: dict[str, Any]


@contextlib.contextmanager
def start(
    name: str,
    shape: networks.Shape,
    peer_python: str,
    modes: Sequence[str],
    *,
    train: bool = True,
) -> Iterator[Pair]:
  """Starts both sides on the weights that the first peer draws.

  Args:
    name: A key of `networks.NETWORKS`.
    shape: Of the batch.
    peer_python: The Python of the peers.
    modes: Their modes, a process each.
    train: Whether the peers are in training mode.

  Raises:
    UserError: A peer does not run, has no such network, or another number of
      parameters.
  """
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    peers = {}
    for mode in modes:
      default_memory = mode.endswith(timing.DEFAULT_MEMORY)
      peer = peer_lib.Peer(peer_python, default_memory=default_memory)
      peers[mode] = stack.enter_context(peer)
    about = peers[modes[0]].ask("describe")
    source = _source_of(name, about["networks"])
    config = networks.config(name, source, shape)
    run = experiment.parse(config)
    weights = os.path.join(folder, "weights.pth")
    batch = os.path.join(folder, "batch.npz")
    np.savez(batch, **ours.make_batch(run))
    for mode, peer in peers.items():
      answer = peer.ask(
          "build",
          mode=mode.removesuffix(timing.DEFAULT_MEMORY),
          source=source,
          network=name,
          num_classes=run.spec.num_classes,
          batch=batch,
          weights=weights,
          bfloat16=shape.dtype == "bfloat16",
          terms={x.output: x.weight for x in run.terms.values()},
          mean=run.data.mean,
          std=run.data.std,
          optimizer=_to_torch(networks.SGD),
          train=train,
      )
      if "error" in answer:
        raise errors.UserError(f"{name}, {mode}: {answer['error']}")
    side = ours.Side(run, (source, weights))
    what = f"{name}: parameters"
    require_equal(what, side.parameters, answer["parameters"], 0)
    row = {
        "network": name,
        "source": source,
        "size": list(run.augmentation.crop_size),
        "batch": run.batch_size,
        "dtype": shape.dtype,
        "remat": shape.remat,
        "num_chunks": shape.num_chunks,
        "parameters": side.parameters,
        "macs": sizes.size(config).macs,
        "peer": {k: about[k] for k in ("versions", "threads", "device")},
    }
    yield Pair(side, peers, row)


def require_equal(
    what: str, ours: float, theirs: float, tolerance: float
) -> None:
  """Raises a `UserError` if two figures differ by more, relative to theirs."""
  if not abs(ours - theirs) <= tolerance * abs(theirs):
    raise errors.UserError(
        f"{what}: {ours:,} here and {theirs:,} there, expected the same within"
        f" {tolerance}; times of different work are not compared"
    )


def _source_of(name: str, available: Mapping[str, Sequence[str]]) -> str:
  for source, names in available.items():
    if name in names:
      return source
  raise errors.UserError(
      f"--peer_python: none of {', '.join(available)} has {name}; install"
      " mmsegmentation there, see benchmarks/peers/mmsegmentation.py"
  )


def _to_torch(options):
  """Returns the options of SGD by PyTorch's names."""
  options = dict(options)
  return {"lr": options.pop("learning_rate")} | options
