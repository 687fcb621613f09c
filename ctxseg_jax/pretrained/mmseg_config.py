"""What the config in a file of mmsegmentation tells of its network.

The config is the text of a Python program, taken apart and never run: of its
assignments those are read whose values are literals, or `dict(...)` of such.
"""

import ast
from collections.abc import Mapping
import math
from typing import Any

from ctxseg_jax.models.backbones import resnet

_LARGEST = 1_000_000  # Characters; real ones have some ten thousand.


def read(text: str) -> dict[str, Any]:
  """Returns the values by name, None for what is no literal.

  Raises:
    ValueError: It is no such program.
  """
  if len(text) > _LARGEST:
    raise ValueError(f"{len(text)} characters")
  try:
    tree = ast.parse(text)
    found = {}
    for node in tree.body:
      match node:
        case ast.Assign([ast.Name(name)], value):
          found[name] = _value(value)
    return found
  except (SyntaxError, MemoryError, RecursionError) as error:
    raise ValueError(type(error).__name__) from error


def _value(node: ast.expr) -> Any:
  match node:
    case ast.Constant(value):
      return value
    case ast.Tuple(items) | ast.List(items):
      return tuple(map(_value, items))
    case ast.Call(ast.Name("dict"), [], keywords):
      return {x.arg: _value(x.value) for x in keywords}
    case ast.Dict(keys, values):
      return {
          key.value: _value(value)
          for key, value in zip(keys, values, strict=True)
          if isinstance(key, ast.Constant)
      }
  return None


def settings(text: str) -> dict[str, Any]:
  """Returns what the config tells, by our dotted keys below `model`.

  With it come `crop_size` and `channel_order`, and as `eval` the section of a
  config for predictions in windows.

  Raises:
    ValueError: It is no config, or of a network that ours cannot be.
  """
  config = read(text)
  model = _dict(config.get("model"))
  backbone, head = _dict(model.get("backbone")), _dict(model.get("decode_head"))
  found = {
      "align_corners": head.get("align_corners"),
      "head.rates": _ints(head.get("dilations"))[1:],
      "head.bins": _ints(head.get("pool_scales")),
      "head.dilation": head.get("dilation"),
      "head.num_iters": head.get("num_stages"),
      "crop_size": _ints(config.get("crop_size")),
      "eval": _windows(_dict(model.get("test_cfg") or config.get("test_cfg"))),
      **_dilation(backbone),
  }
  for section, key in (
      (config.get("img_norm_cfg"), "to_rgb"),
      (model.get("data_preprocessor"), "bgr_to_rgb"),
  ):
    if _dict(section).get(key) is False:
      found["channel_order"] = "bgr"
  return {k: x for k, x in found.items() if x not in (None, (), {})}


def _dilation(backbone: Mapping[str, Any]) -> dict[str, Any]:
  if not backbone:
    return {}
  strides = _ints(backbone.get("strides")) or (1, 2, 2, 2)
  *_, stage4 = _ints(backbone.get("dilations")) or (1,)
  contracted = backbone.get("contract_dilation")
  grid = _ints(backbone.get("multi_grid"))
  found = {"backbone.output_stride": 4 * math.prod(strides)}
  if grid:
    dilation = "multi_grid_stage4" if contracted else "multi_grid"
    # Theirs are the dilations themselves, ours factors of the stage's.
    if grid != tuple(stage4 * x for x in resnet.MULTI_GRID):
      raise ValueError(
          f"backbone.multi_grid={grid} with a dilation of {stage4}, which no"
          " dilation of ours is"
      )
  else:
    dilation = "contracted" if contracted else "uniform"
  return found | ({"backbone.dilation": dilation} if stage4 > 1 else {})


def _windows(test: Mapping[str, Any]) -> dict[str, Any]:
  crop_size, stride = _ints(test.get("crop_size")), _ints(test.get("stride"))
  if test.get("mode") != "slide" or len(crop_size) != 2 or len(stride) != 2:
    return {}
  return {"mode": "slide", "crop_size": crop_size, "stride": stride}


def _dict(value: Any) -> Mapping[str, Any]:
  return value if isinstance(value, Mapping) else {}


def _ints(value: Any) -> tuple[int, ...]:
  if isinstance(value, tuple) and all(type(x) is int for x in value):
    return value
  return ()
