"""Checkpoints that are whole, verified and survive a kill at any moment.

Orbax keeps no checksum of the arrays, and a flipped bit on disk would be
restored as a slightly different network; under some names of folders it writes
what it cannot read, without an error. So a step is written beside its name,
read back, given a `manifest.json` with its number and the size and SHA-256 of
each file, and only then renamed. A step that differs from its manifest, or has
none, is damaged, and the one before it is used.

  checkpoints/
    400/           complete: state/, which is Orbax's, and manifest.json
    600/
    800.saving/    being written, or an interrupted save: the next start
                   deletes it
    600.damaged/   failed its manifest when it was restored; kept
"""

from ctxseg_jax.training.checkpoint.manager import Checkpoints
from ctxseg_jax.training.checkpoint.manager import load
from ctxseg_jax.training.checkpoint.manager import save_best

__all__ = ["Checkpoints", "load", "save_best"]
