r"""Shows what a network sees: augmented samples with their labels, as pages.

  python -m ctxseg_jax.data.browse --config configs/custom.py \
      --config.data.root=DIR --output pages/
  python -m ctxseg_jax.data.browse --dataset camvid --data_dir data \
      --output pages/

With a config these are its first training batches, to the pixel. With a dataset
alone they are scaled, mirrored and cropped as most recipes do.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import pathlib
from typing import Any

from absl import flags

from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data import custom
from ctxseg_jax.data import pipeline
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import pictures

_PER_PAGE = 12
# Of the usual recipes.
_DEFAULTS = {
    "crop_size": (480, 480),
    "scale_range": (0.5, 2.0),
    "flip": True,
    "train_split": "train",
}


def browse(
    section: Mapping[str, Any],
    output: pathlib.Path,
    *,
    num_images: int,
    batch_size: int,
    seed: int,
) -> list[pathlib.Path]:
  """Writes pages of augmented samples.

  Args:
    section: The section `data` of a config.
    output: Folder to write to; made if it is not there.
    num_images: Samples in all.
    batch_size: Of the training, on which the order depends.
    seed: Of the training.

  Returns:
    The pages.

  Raises:
    UserError: The data cannot be read, or the folder not be written.
  """
  section, spec = experiment.complete_data(section)
  if spec.task != "segmentation":
    raise errors.UserError(
        f"config: data.name: {spec.name} has one class per image; expected a "
        "dataset of label maps. Choose another."
    )
  augmentation = experiment.build_augmentation(section, spec)
  source = pipeline.open_source(
      spec, section["train_split"], section["data_dir"]
  )
  samples = []
  with contextlib.closing(
      pipeline.train_batches(
          source, augmentation, batch_size=batch_size, seed=seed
      )
  ) as batches:
    while len(samples) < num_images:
      batch = next(batches)
      for index, image, label in zip(
          batch["index"], batch["image"], batch["label"], strict=True
      ):
        name = source.record(int(index))["name"].decode()
        spec.check_label(label, name)
        samples.append((name, image, label))
  return _write(samples[:num_images], spec, output)


def _write(
    samples: Sequence[tuple[str, Any, Any]],
    spec: spec_lib.DatasetSpec,
    output: pathlib.Path,
) -> list[pathlib.Path]:
  pages = []
  for start in range(0, len(samples), _PER_PAGE):
    pages.append(output / f"page_{start // _PER_PAGE + 1:03}.png")
    picture = pictures.grid(
        samples[start : start + _PER_PAGE], spec.class_names, spec.palette
    )
    try:
      pictures.save_png(pages[-1], picture)
    except OSError as error:
      raise errors.UserError(
          f"{pages[-1]}: cannot be written ({error.strerror}); expected a "
          "writable folder. Choose another --output."
      ) from error
  return pages


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  if (values.config is None) == (values.dataset is None):
    raise errors.UserError(
        "expected --config or --dataset, and not both. Pass one of them."
    )
  if values.config is not None:
    config = values.config.to_dict()
    section = config["data"]
    batch_size, seed = config["batch_size"], config["seed"]
  else:
    section = {"name": values.dataset, "data_dir": "data", **_DEFAULTS}
    batch_size, seed = _PER_PAGE, 0
    if values.source is not None:
      section["root"] = values.source
  if values.source is not None and section["name"] != custom.NAME:
    raise errors.UserError(
        "--source: goes with --dataset=custom; expected a dataset that was "
        "prepared. Leave it out."
    )
  if values.data_dir is not None:
    section["data_dir"] = values.data_dir
  if values.split is not None:
    section["train_split"] = values.split
  pages = browse(
      section,
      pathlib.Path(values.output),
      num_images=values.num_images,
      batch_size=batch_size,
      seed=seed if values.seed is None else values.seed,
  )
  print(f"{values.num_images} samples on {len(pages)} pages: {pages[0].parent}")


def define_flags() -> None:
  """Defines the flags of the command."""
  commands.define_config()
  flags.DEFINE_string("dataset", None, "Name of a dataset, without a config.")
  flags.DEFINE_string("source", None, "Your folder, with --dataset=custom.")
  flags.DEFINE_string(
      "data_dir", None, "Folder of prepared datasets; default: the config's."
  )
  flags.DEFINE_string("split", None, "Split; default: the training split.")
  flags.DEFINE_string("output", None, "Folder to write to.")
  flags.DEFINE_integer(
      "num_images", _PER_PAGE, "Samples to show.", lower_bound=1
  )
  flags.DEFINE_integer(
      "seed", None, "Of the samples; default: the config's.", lower_bound=0
  )
  flags.mark_flag_as_required("output")


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  define_flags()
  commands.run(main)
