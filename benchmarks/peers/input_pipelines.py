"""Training examples as other codebases make them of encoded files.

Written after the data pipelines of two of them, with what they do step by
step: every image is resized, padded and cropped in turn. Each function takes
the bytes of an image and of its label, a crop size and a generator, and returns
what goes into a batch.
"""

import io

import cv2
import numpy as np
from PIL import Image

SCALES = (0.5, 2.0)
_MEAN = np.array((123.675, 116.28, 103.53), np.float32)
_STD = np.array((58.395, 57.12, 57.375), np.float32)


def torchvision(image, label, crop_size, rng):
  """The reference training of torchvision: Pillow, then float32 tensors.

  RandomResize, RandomHorizontalFlip, RandomCrop, ToDtype, Normalize.
  """
  image = Image.open(io.BytesIO(image)).convert("RGB")
  label = Image.open(io.BytesIO(label))
  scale = rng.uniform(*SCALES)
  size = [round(n * scale) for n in image.size]
  image = image.resize(size, Image.Resampling.BILINEAR)
  label = label.resize(size, Image.Resampling.NEAREST)
  if rng.uniform() < 0.5:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    label = label.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  image = _pad(np.asarray(image), crop_size, 0)
  label = _pad(np.asarray(label), crop_size, 255)
  part = _place(label.shape, crop_size, rng)
  image, label = image[part], label[part]
  image = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
  image = (image - _MEAN[:, None, None]) / _STD[:, None, None]
  return image, label.astype(np.int64)


def mmsegmentation(image, label, crop_size, rng):
  """The usual pipeline of mmsegmentation: OpenCV, then uint8 tensors.

  LoadImageFromFile, LoadAnnotations, RandomResize, RandomCrop (with
  cat_max_ratio=0.75), RandomFlip, PackSegInputs; normalised on the device.
  """
  image = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
  label = np.array(Image.open(io.BytesIO(label)))
  scale = rng.uniform(*SCALES)
  size = [int(n * scale + 0.5) for n in image.shape[1::-1]]
  image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
  label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
  image, label = _pad(image, crop_size, 0), _pad(label, crop_size, 255)
  for _ in range(10):
    part = _place(label.shape, crop_size, rng)
    values, counts = np.unique(label[part], return_counts=True)
    counts = counts[values != 255]
    if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
      break
  image, label = image[part], label[part]
  if rng.uniform() < 0.5:
    image, label = cv2.flip(image, 1), cv2.flip(label, 1)
  image = np.ascontiguousarray(image.transpose(2, 0, 1))
  return image, label.astype(np.int64)


def _pad(array, crop_size, value):
  """Pads at the right and the bottom what is smaller than the crop."""
  bottom, right = (
      max(0, n - m) for n, m in zip(crop_size, array.shape, strict=False)
  )
  if not (bottom or right):
    return array
  edges = (0, bottom, 0, right, cv2.BORDER_CONSTANT)
  return cv2.copyMakeBorder(array, *edges, value=(value,) * 3)


def _place(size, crop_size, rng):
  places = [
      rng.integers(m - n + 1) for n, m in zip(crop_size, size, strict=True)
  ]
  return tuple(
      slice(at, at + n) for at, n in zip(places, crop_size, strict=True)
  )
