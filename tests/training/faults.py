"""Dies at a chosen moment of a save, as by `kill -9` or a loss of power.

python tests/training/faults.py POINT [flags of train.py]
"""

import os
import pathlib
import runpy
import signal
import sys

# What a save does last but one, and last; True: the moment after it.
POINTS = {
    "after_commit": ("complete", False),
    "before_manifest": ("_write_manifest", False),
    "after_manifest": ("_write_manifest", True),
    "before_prune": ("prune", False),
}


def die_at(point: str) -> None:
  """Arranges that this process is killed when it comes to a point."""
  from ctxseg_jax.training.checkpoint import folders

  name, after = POINTS[point]
  original = getattr(folders, name)

  def killed(*args):
    if after:
      original(*args)
    os.kill(os.getpid(), signal.SIGKILL)

  setattr(folders, name, killed)


if __name__ == "__main__":
  root = pathlib.Path(__file__).parents[2]
  sys.path.insert(0, str(root))
  die_at(sys.argv.pop(1))
  runpy.run_path(str(root / "train.py"), run_name="__main__")
