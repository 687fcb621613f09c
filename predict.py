"""Predicts class maps, or classes, of photographs with a trained network.

  python predict.py --workdir runs/camvid --images photos/ --output out/
  python predict.py --workdir runs/camvid --images 'photos/**/*.jpg' \
      --output out/ --flip --scales 0.75,1.0,1.25

Writes for each image a label PNG with the data set's palette and an overlay
with a legend; with --probabilities also a float16 array [H, W, classes] (.npy),
with --probability_pngs a gray 16-bit PNG of each class; with --explain a
picture of what the network's context head sees. A network that classifies whole
images writes predictions.csv: class and probability of each, with
--probabilities those of all classes.
"""

from absl import flags

from ctxseg_jax import commands

_WORKDIR = flags.DEFINE_string("workdir", None, "Work dir of train.py.")
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "An image, a folder of images and folders, a quoted pattern such as"
    " 'photos/**/*.jpg', or a .txt list of images.",
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
_PROBABILITY_PNGS = flags.DEFINE_bool(
    "probability_pngs",
    False,
    "Write class probabilities as PNGs of 16 bits too, one per class.",
)
_SUBMISSION = flags.DEFINE_bool(
    "submission",
    False,
    "Write maps of the ids that the data set's server takes, too.",
)
_EXPLAIN = flags.DEFINE_bool(
    "explain",
    False,
    "Write a picture of what the context head sees too: its attention of a"
    " point, gates, predicted classes and the like.",
)
_POINT = flags.DEFINE_string(
    "point",
    None,
    "x,y in pixels of each image, for --explain; default: its centre.",
)
_VIEWS = commands.define_views()
flags.mark_flags_as_required(["workdir", "images", "output"])


def main(argv):
  del argv
  from ctxseg_jax import experiment
  from ctxseg_jax import files
  from ctxseg_jax.evaluation import predictions

  paths = predictions.list_images(_IMAGES.value)
  trained = experiment.load(_WORKDIR.value, _CHECKPOINT.value)
  count = trained.task.write(
      trained.predictor(trained.settings_with(_VIEWS)),
      trained.variables,
      paths,
      _OUTPUT.value,
      trained.spec,
      opacity=_OPACITY.value,
      probabilities=_PROBABILITIES.value,
      probability_pngs=_PROBABILITY_PNGS.value,
      submission=_SUBMISSION.value,
      explain=_EXPLAIN.value,
      point=_POINT.value,
  )
  print(
      f"{count} images predicted, written to {files.printable(_OUTPUT.value)}"
  )


if __name__ == "__main__":
  commands.run(main)
