"""Swaps the cue of context scenes and looks whether a network follows.

  python -m benchmarks.cue_swap --workdir runs/quickstart

The same index is drawn under each of the four scenes: nothing changes but the
ink of the band at one side, and with it the right class of every object. A
network that uses the band gets the objects of all four right; one that cannot
see it predicts the same classes four times. Writes cue_swap.json and
cue_swap.png into the work dir.
"""

import json
import pathlib
from typing import Any

from absl import flags
import numpy as np

from ctxseg_jax import commands

_PICTURE_INDICES = (0, 1, 2)


def measure(trained: Any, num_images: int) -> tuple[dict[str, Any], list]:
  """Predicts every index under each scene.

  Args:
    trained: An `experiment.Trained`.
    num_images: Indices 0 ... of the validation seed.

  Returns:
    Shares over the object pixels: `right_by_scene` (chance 0.25), their mean
    `right`, `right_by_distance` (from the band, in steps of 10 pixels: how far
    the network sees), and `unchanged`, pixels predicted alike under all four
    scenes; and for some indices the list of four (scene, prediction).
  """
  from ctxseg_jax.data.datasets import context_scenes
  from ctxseg_jax.evaluation import procedure

  settings = procedure.Settings(batch_size_per_device=4)
  predictor = trained.predictor(settings)
  right = np.zeros(4)
  far = np.zeros((2, 13))  # Right and all object pixels, by distance / 10.
  unchanged = 0
  pixels = 0
  shown = []
  per_call = trained.mesh.size
  for first in range(0, num_images, per_call):
    indices = range(first, min(first + per_call, num_images))
    scenes = [
        s
        for i in indices
        for s in context_scenes.cue_swap(context_scenes.VAL_SEED, i)
    ]
    predictions = np.stack(
        predictor.predict(trained.variables, [s.image for s in scenes])
    )
    for n, index in enumerate(indices):
      four = scenes[4 * n : 4 * n + 4]
      found = predictions[4 * n : 4 * n + 4]
      objects = four[0].look >= 0
      pixels += objects.sum()
      for k, scene in enumerate(four):
        is_right = (found[k] == scene.label)[objects]
        right[k] += is_right.sum()
        tens = distance(scene)[objects] // 10
        far += [
            np.bincount(tens, weights=w, minlength=13)
            for w in (is_right, np.ones_like(is_right))
        ]
      unchanged += np.all(found == found[0], axis=0)[objects].sum()
      if index in _PICTURE_INDICES:
        shown.append(list(zip(four, found, strict=True)))
  shares = right / pixels
  return {
      "num_images": num_images,
      "object_pixels": int(pixels),
      "right": float(shares.mean()),
      "right_by_scene": shares.tolist(),
      "right_by_distance": {
          str(10 * i): float(far[0, i] / far[1, i])
          for i in np.flatnonzero(far[1])
      },
      "unchanged": float(unchanged / pixels),
      "step": trained.step,
  }, shown


def distance(scene: Any) -> np.ndarray:
  """Returns how many pixels each pixel is away from the band, int [H, W]."""
  top, bottom, left, right = scene.band
  y, x = np.indices(scene.look.shape)
  gaps = (top - y, y - (bottom - 1), left - x, x - (right - 1))
  return np.maximum(np.maximum.reduce(gaps), 0)


def draw(shown: list, palette: np.ndarray) -> np.ndarray:
  """Draws for each index its four images above its four predictions."""
  from ctxseg_jax.evaluation import pictures

  rows = []
  for four in shown:
    rows.append(np.hstack([scene.image for scene, _ in four]))
    rows.append(np.hstack([pictures.colorize(p, palette) for _, p in four]))
  return np.repeat(np.repeat(np.vstack(rows), 2, axis=0), 2, axis=1)


def main(argv):
  del argv
  from ctxseg_jax import errors
  from ctxseg_jax import experiment
  from ctxseg_jax.evaluation import pictures

  trained = experiment.load(flags.FLAGS.workdir, flags.FLAGS.checkpoint)
  if trained.spec.name != "context_scenes":
    raise errors.UserError(
        f"{flags.FLAGS.workdir}: trained on {trained.spec.name}, but only"
        " context_scenes has a cue to swap"
    )
  result, shown = measure(trained, flags.FLAGS.num_images)
  folder = pathlib.Path(flags.FLAGS.workdir)
  (folder / "cue_swap.json").write_text(json.dumps(result, indent=2) + "\n")
  palette = np.array(trained.spec.palette, np.uint8)
  pictures.save_png(folder / "cue_swap.png", draw(shown, palette))
  print(
      f"cue swap, {result['num_images']} images x 4 scenes:"
      f" {100 * result['right']:.2f} % of object pixels right (by scene"
      f" {', '.join(f'{100 * x:.1f}' for x in result['right_by_scene'])};"
      f" chance 25), {100 * result['unchanged']:.2f} % predicted alike under"
      " all four"
  )


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_string("workdir", None, "Work dir of train.py.")
  flags.DEFINE_string(
      "checkpoint", "best", "'best', 'last' or a step that is kept."
  )
  flags.DEFINE_integer(
      "num_images", 256, "Validation indices to swap.", lower_bound=1
  )
  flags.mark_flags_as_required(["workdir"])
  commands.run(main)
