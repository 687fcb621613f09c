r"""Packs a dataset into array_record files, checking every pair on the way.

  python -m ctxseg_jax.data.prepare --dataset camvid --source DIR --data_dir DIR

The dataset appears in `data_dir` under its name when it is complete, and not at
all when something is wrong. Running the command again does nothing.
"""

from collections.abc import Sequence

from absl import flags

from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax.data import custom
from ctxseg_jax.data import datasets
from ctxseg_jax.data import packing
from ctxseg_jax.data import records


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  source = values.source
  custom.check_overlap_flag(values, values.dataset == custom.NAME)
  if values.dataset != custom.NAME:
    spec = datasets.lookup(values.dataset, "--dataset")
  elif source is None:
    raise errors.UserError(
        f"--source: missing; expected your folder, with {custom.LAYOUTS}. Pass "
        "it."
    )
  else:
    spec = custom.from_folder(
        source, overlapping_splits=values.overlapping_splits
    )
    source = None
  written = packing.prepare(
      spec, values.data_dir, source=source, any_size=values.any_size
  )
  if not written:
    print(f"{spec.name} is already prepared; nothing was done.")
  print(records.summary(spec, values.data_dir))


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
      "dataset", None, ", ".join([custom.NAME, *sorted(datasets.DATASETS)])
  )
  flags.DEFINE_string(
      "source", None, "Your folder of the dataset, if it needs one."
  )
  flags.DEFINE_string("data_dir", None, "Folder of all prepared datasets.")
  flags.DEFINE_bool(
      "any_size", False, "Accept other numbers of pairs than the published."
  )
  custom.define_overlap_flag()
  flags.mark_flags_as_required(["dataset", "data_dir"])


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  define_flags()
  commands.run(main)
