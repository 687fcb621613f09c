"""Holds exported files against the network they were made from.

A file is loaded in a fresh process that imports JAX or onnxruntime, NumPy and
nothing of this package, by the code that users are shown.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.deployment import loaders

TOLERANCE = 1e-4
# Where images are resized: OpenCV's weights for that have 11 bits.
RESIZED_TOLERANCE = 0.05
_NUM_RUNS = 5

_MEASURE = """
import sys
import time

batches = np.load(sys.argv[1])
results = {}
for name in batches:
  for key, x in predict(batches[name]).items():
    results[name + "/" + key] = x
image = batches["0"][:1]
predict(image)
times = []
for _ in range(int(sys.argv[3])):
  start = time.perf_counter()
  predict(image)
  times.append(time.perf_counter() - start)
assert "ctxseg_jax" not in sys.modules
np.savez(sys.argv[2], times=times, **results)
"""


class Outputs(NamedTuple):
  """What was computed of the batches, and how long one image took."""

  probabilities: list[np.ndarray]
  classes: list[np.ndarray]
  milliseconds: float


def make_batches(
    size: Sequence[int], other_size: Sequence[int] | None
) -> list[np.ndarray]:
  """Returns batches of images of blots and noise, uint8 [B, H, W, 3].

  Two images of a size, then one of the other, if there is any.
  """
  rng = np.random.default_rng(0)
  batches = []
  for number, (h, w) in ((2, size), (1, other_size or (0, 0))):
    blots = rng.uniform(0, 256, (number, h // 16 + 1, w // 16 + 1, 3))
    images = blots.repeat(16, axis=1).repeat(16, axis=2)[:, :h, :w]
    images += rng.normal(0, 20, images.shape)
    batches.append(images.clip(0, 255).astype(np.uint8))
  return batches if other_size else batches[:1]


def run_ours(
    trained: experiment.Trained, batches: Sequence[np.ndarray]
) -> Outputs:
  """Predicts batches as evaluations of the run do, untiled."""
  settings = trained.run.settings
  if hasattr(settings, "memory_gb"):
    settings = dataclasses.replace(settings, memory_gb=1e6)
  predictor = trained.predictor(settings)

  def predict(images):
    return predictor.predict(
        trained.variables, list(images), probabilities=True
    )

  found = [np.stack(predict(images)) for images in batches]
  classes = [x.argmax(axis=-1) for x in found]
  image = batches[0][:1]
  predict(image)
  return Outputs(found, classes, _milliseconds(lambda: predict(image)))


def _milliseconds(function: Callable[[], object]) -> float:
  times = []
  for _ in range(_NUM_RUNS):
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return 1e3 * statistics.median(times)


def run_fresh(
    kind: str, folder: pathlib.Path, batches: Sequence[np.ndarray]
) -> Outputs:
  """Predicts batches by an exported file, in a process of its own.

  Raises:
    UserError: The process fails.
  """
  code = f"import numpy as np\n{loaders.CODE[kind]}{_MEASURE}"
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  environment["JAX_PLATFORMS"] = "cpu"
  with tempfile.TemporaryDirectory() as temporary:
    inputs, results = (f"{temporary}/{x}.npz" for x in ("inputs", "results"))
    np.savez(inputs, **{str(i): x for i, x in enumerate(batches)})
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, inputs, results, str(_NUM_RUNS)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
      last = (done.stderr.strip().splitlines() or ["no message"])[-1]
      raise errors.UserError(
          f"{loaders.FILES[kind]} does not run in a process of its own"
          f" (exit {done.returncode}): {last[:200]}"
      )
    with np.load(results) as found:
      return Outputs(
          [found[f"{i}/probabilities"] for i in range(len(batches))],
          [found[f"{i}/classes"] for i in range(len(batches))],
          1e3 * statistics.median(found["times"].tolist()),
      )


def compare(
    kind: str, theirs: Outputs, ours: Outputs, tolerance: float
) -> float:
  """Returns the largest difference of a probability.

  `theirs` may have the first batches alone.

  Raises:
    UserError: It is above the tolerance, or a class is another although it is
      more probable than the next by more than that.
  """
  differences = []
  for expected, found, classes in zip(
      ours.probabilities, theirs.probabilities, theirs.classes, strict=False
  ):
    differences.append(np.abs(found - expected).max())
    chosen = np.take_along_axis(
        expected, classes[..., None].astype(np.int64), axis=-1
    )
    # By how much the chosen classes fall short of the most probable.
    differences.append((expected.max(axis=-1) - chosen[..., 0]).max())
  largest = float(np.max(differences))  # NaN if one of them is.
  if not largest <= tolerance:
    raise errors.UserError(
        f"{loaders.FILES[kind]} predicts otherwise than the network it was"
        f" made from: probabilities differ by up to {largest:.2g}, expected at"
        f" most {tolerance:g}"
    )
  return largest
