r"""Shows what a network sees: augmented samples with their labels, as pages.

  python -m ctxseg_jax.data.browse --config configs/custom.py \
      --config.data.root=DIR --output pages/
  python -m ctxseg_jax.data.browse --dataset camvid --data_dir data \
      --output pages/

With a config these are its first training batches, to the pixel. With a dataset
alone they are scaled, mirrored and cropped as most recipes do.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import pathlib

from absl import flags
import numpy as np

from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import files
from ctxseg_jax.data import custom
from ctxseg_jax.data import datasets
from ctxseg_jax.data import pipeline
from ctxseg_jax.data import records
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import pictures

_PER_PAGE = 12

# Name, image uint8 [H, W, 3] and label uint8 [H, W].
Sample = tuple[str, np.ndarray, np.ndarray]


def samples(
    spec: spec_lib.DatasetSpec,
    source: records.Source,
    augmentation: transforms.Augmentation,
    *,
    batch_size: int,
    seed: int,
) -> Iterator[Sample]:
  """Yields the examples of `pipeline.train_batches`, endlessly."""
  batches = pipeline.train_batches(
      source, augmentation, batch_size=batch_size, seed=seed
  )
  for batch in batches:
    columns = (batch[name] for name in ("index", "image", "label"))
    for index, image, label in zip(*columns, strict=True):
      name = source.record(int(index))["name"].decode()
      spec.check_label(label, name)
      yield name, image, label


def write_pages(
    shown: Sequence[Sample], spec: spec_lib.DatasetSpec, output: pathlib.Path
) -> list[pathlib.Path]:
  """Writes samples to pages in a folder, made if needed; returns the pages."""
  pages = []
  for start in range(0, len(shown), _PER_PAGE):
    pages.append(output / f"page_{start // _PER_PAGE + 1:03}.png")
    picture = pictures.grid(
        shown[start : start + _PER_PAGE], spec.class_names, spec.palette
    )
    pictures.save_png(pages[-1], picture)
  return pages


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  if (values.config is None) == (values.dataset is None):
    raise errors.UserError(
        "expected --config or --dataset, and not both. Pass one of them."
    )
  if values.source is not None and values.dataset != custom.NAME:
    raise errors.UserError(
        "--source: goes with --dataset=custom; expected a dataset that was "
        "prepared. Leave it out."
    )
  if values.config is not None:
    run = experiment.parse(values.config)
    spec, augmentation = run.spec, run.augmentation
    data_dir, split = run.data.data_dir, run.data.train_split
    batch_size, seed = run.batch_size, run.seed
  else:
    custom.check_overlap_flag(values, values.dataset == custom.NAME)
    spec = datasets.open_spec(
        values.dataset,
        values.source or "",
        overlapping_splits=values.overlapping_splits,
    )
    augmentation = transforms.Augmentation(  # Of the usual recipes.
        crop_size=(480, 480),
        scale_range=(0.5, 2.0),
        flip=True,
        pad_color=spec.mean,
        ignore_label=spec.ignore_label,
    )
    data_dir, split = "data", "train"
    batch_size, seed = _PER_PAGE, 0
  if spec.task != "segmentation":
    raise errors.UserError(
        f"{spec.name}: has one class per image; expected a dataset of label "
        "maps. Choose another."
    )
  source = records.open_source(
      spec, values.split or split, values.data_dir or data_dir
  )
  seed = seed if values.seed is None else values.seed
  shown = samples(spec, source, augmentation, batch_size=batch_size, seed=seed)
  shown = list(itertools.islice(shown, values.num_images))
  pages = write_pages(shown, spec, files.local_path(values.output, "--output"))
  print(f"{values.num_images} samples on {len(pages)} pages: {pages[0].parent}")


def define_flags() -> None:
  """Defines the flags of the command."""
  commands.define_config()
  flags.DEFINE_string("dataset", None, "Name of a dataset, without a config.")
  flags.DEFINE_string("source", None, "Your folder, with --dataset=custom.")
  custom.define_overlap_flag()
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
