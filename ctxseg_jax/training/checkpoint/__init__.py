"""Checkpoints that are whole, verified and survive a kill at any moment.

Orbax writes a step into a temporary directory and renames it, so a step is
there or not; but it keeps no checksum of the arrays, and a flipped bit on disk
would be restored as a slightly different network. So every step gets a
`manifest.json` with the size and SHA-256 of each file, written last. A step
without a manifest is an interrupted save; a step that differs from its
manifest is damaged, and the one before it is used.

  checkpoints/
    400/             complete: orbax's files and manifest.json
    600/
    600.damaged/     failed its manifest when it was restored; kept
    800.incomplete/  committed without a manifest; goes with the next save
"""

from ctxseg_jax.training.checkpoint.manager import Checkpoints
from ctxseg_jax.training.checkpoint.manager import save_best
from ctxseg_jax.training.checkpoint.reading import load

__all__ = ["Checkpoints", "load", "save_best"]
