"""How class maps are made: windows, scales, flips, and the memory it takes."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Annotated
from typing import Literal

from ctxseg_jax import bounds
from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import tiling

Scales = Annotated[
    tuple[Annotated[float, bounds.Bounds(0.01, 100)], ...], bounds.NotEmpty()
]
Size = tuple[bounds.PositiveInt, bounds.PositiveInt]


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a class map is made.

  Attributes:
    mode: "whole" runs the network on the whole image, "slide" on windows.
    scales: Factors the image is resized by; the views are merged as `merge`
      says.
    merge: "probabilities" averages the class probabilities of all views.
      "pytorch_encoding" does as the authors' code of EncNet, with windows: the
      exponentials of the logits are averaged over windows and added over
      scales, not divided by their sums, so that a confident view counts for
      more; `flip` adds the logits of the mirrored window before that; windows
      hang over the image, whose surroundings are black; and images are resized
      corner to corner.
    short_side: With `long_side`, the size that a scale of 1 stands for: the
      largest within both (`transforms.fit_scale`); without them, the image's
      own. Class maps come back at the image's own size.
    long_side: See `short_side`.
    flip: Whether to add the mirrored image of every scale.
    crop_size: (H, W) of the windows of "slide".
    stride: (H, W) between windows; None is two thirds of `crop_size`.
    max_canvases: The most padded shapes, hence compilations, per scale.
    batch_size_per_device: Images a device works on at once. Fixed per device
      and not per run, so that a prediction does not depend on the number of
      devices.
    memory_gb: What the predictions of a device may take, in GB (10^9 bytes).
      Batches become smaller until they fit, then images are predicted in
      tiles. None is 1 on CPUs and half of the memory of an accelerator.
    tile_margin: Pixels that the network sees on every side of a tile. Where its
      receptive field reaches no farther, tiles change nothing.
  """

  mode: Literal["whole", "slide"] = "whole"
  scales: Scales = (1.0,)
  merge: Literal["probabilities", "pytorch_encoding"] = "probabilities"
  short_side: bounds.PositiveInt | None = None
  long_side: bounds.PositiveInt | None = None
  flip: bool = False
  crop_size: Size | None = None
  stride: Size | None = None
  max_canvases: bounds.PositiveInt = 8
  batch_size_per_device: bounds.PositiveInt = 1
  memory_gb: bounds.PositiveFloat | None = None
  tile_margin: Annotated[int, bounds.Bounds(tiling.ALIGNMENT)] = 128

  def __post_init__(self):
    bounds.check_fields(self)
    if self.mode == "whole":
      if self.merges_exponentials:
        raise ValueError(f"merge: {self.merge!r} needs mode 'slide'")
      return
    if self.crop_size is None:
      raise ValueError("mode 'slide' needs crop_size=(H, W)")
    if any(s > c for s, c in zip(self.steps, self.crop_size, strict=True)):
      raise ValueError(
          f"stride: {self.stride} leaves gaps between windows of"
          f" {self.crop_size}; expected at most their size"
      )

  @property
  def merges_exponentials(self) -> bool:
    """Whether views are merged as PyTorch-Encoding does."""
    return self.merge == "pytorch_encoding"

  @property
  def steps(self) -> tuple[int, int]:
    """(H, W) between windows."""
    return self.stride or _default_stride(self.crop_size)

  def describe(self) -> str:
    """Returns in a few words what belongs beside an mIoU."""
    text = self.mode
    if self.mode == "slide":
      text += " {}x{}".format(*self.crop_size)
      if self.steps != _default_stride(self.crop_size):
        text += " every {}x{}".format(*self.steps)
    for name in ("short_side", "long_side"):
      if getattr(self, name) is not None:
        text += f", {name.replace('_', ' ')} {getattr(self, name)}"
    text += ", scales " + ",".join(f"{s:g}" for s in self.scales)
    text += ", flip" if self.flip else ""
    return text + (", merged as PyTorch-Encoding" * self.merges_exponentials)

  def scaled_size(self, size: Sequence[int], scale: float) -> tuple[int, int]:
    """Returns (H, W) of an image at one of the scales, rounded, at least 1.

    Halves are rounded up, as in the codes of mmsegmentation and EncNet.
    """
    scale *= transforms.fit_scale(size, self.short_side, self.long_side)
    # 375 * 0.78 may come out a little below 292.5.
    return tuple(max(1, math.floor(n * scale + 0.5 + 1e-6)) for n in size)


def _default_stride(crop_size):
  return tuple(max(1, n * 2 // 3) for n in crop_size)
