"""Code that runs an exported network, as its card shows and its check runs it.

It needs no ctxseg_jax, and is run in the folder of the export.
"""

FILES = {"StableHLO": "model.stablehlo", "ONNX": "model.onnx"}

CODE = {
    "StableHLO": '''\
import jax
from jax import export
import numpy as np

with open("model.stablehlo", "rb") as file:
  exported = export.deserialize(bytearray(file.read()))
network = jax.jit(exported.call)


def predict(images):
  """Maps RGB images, uint8 [B, H, W, 3], to classes and probabilities."""
  return {name: np.asarray(x) for name, x in network(images).items()}
''',
    "ONNX": '''\
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
names = ["classes", "probabilities"]


def predict(images):
  """Maps RGB images, uint8 [B, H, W, 3], to classes and probabilities."""
  return dict(zip(names, session.run(names, {"images": images})))
''',
}

USE = """\
import numpy as np
from PIL import Image

photo = np.asarray(Image.open("photo.jpg").convert("RGB"){resized})
out = predict(photo[None])
out["classes"][0]  # {classes}
out["probabilities"][0]  # {probabilities}
"""
