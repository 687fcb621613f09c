"""Predicts class maps, or classes, of photographs with a trained network.

  python predict.py --workdir runs/camvid --images photos/ --output out/

Writes for each image a label PNG with the data set's palette and an overlay;
with --probabilities also a float16 array [H, W, classes] (.npy). A network that
classifies whole images writes predictions.csv: class and probability of each,
with --probabilities those of all classes.
"""

from absl import flags

from ctxseg_jax import commands

_WORKDIR = flags.DEFINE_string("workdir", None, "Work dir of train.py.")
_IMAGES = flags.DEFINE_string(
    "images", None, "An image, a folder of images, or a .txt list of images."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "'best', 'last' or a step that is kept."
)
_OPACITY = flags.DEFINE_float(
    "opacity", None, "Of the overlay, 0 to 1; default: 0.5.", 0, 1
)
_PROBABILITIES = flags.DEFINE_bool(
    "probabilities", False, "Write class probabilities too."
)
_SUBMISSION = flags.DEFINE_bool(
    "submission",
    False,
    "Write maps of the ids that the data set's server takes, too.",
)
flags.mark_flags_as_required(["workdir", "images", "output"])


def main(argv):
  del argv
  from ctxseg_jax import experiment
  from ctxseg_jax import files
  from ctxseg_jax.evaluation import predictions

  paths = predictions.list_images(_IMAGES.value)
  trained = experiment.load(_WORKDIR.value, _CHECKPOINT.value)
  predictor = trained.predictor()
  count = trained.task.write(
      predictor,
      trained.variables,
      paths,
      _OUTPUT.value,
      trained.spec,
      opacity=_OPACITY.value,
      probabilities=_PROBABILITIES.value,
      submission=_SUBMISSION.value,
  )
  print(
      f"{count} images predicted, written to {files.printable(_OUTPUT.value)}"
  )


if __name__ == "__main__":
  commands.run(main)
