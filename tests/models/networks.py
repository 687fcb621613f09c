"""Shapes, counts and values of variables, for the tests of modules."""

import inspect

import flax
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import experiment


def build(backbone, head, num_classes=5, **fields):
  """Builds a network from sections of a config."""
  config = dict(backbone=backbone, head=head, **fields)
  return experiment.build_model(config, num_classes)


def abstract(module, inputs=(64, 64)):
  """Returns the shapes of outputs and variables.

  Args:
    module: A backbone, head, network or part of one.
    inputs: What it is applied to; of images the size will do.
  """
  if isinstance(inputs, tuple):
    inputs = jnp.zeros((1, *inputs, 3))
  parameters = inspect.signature(module.__call__).parameters
  kw = dict(train=False) if "train" in parameters else {}
  return jax.eval_shape(
      lambda: module.init_with_output(jax.random.key(0), inputs, **kw)
  )


def num_params(module, inputs=(64, 64)):
  _, variables = abstract(module, inputs)
  return count(variables["params"])


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def initialize(module, inputs):
  """Initialises a module as one program."""
  init = jax.jit(
      module.init,
      static_argnames="train",
      compiler_options={"xla_backend_optimization_level": 1},
  )
  return init(jax.random.key(0), inputs, train=False)


def evaluate(module, variables, inputs):
  """Applies a module as one program, not in training."""
  apply = jax.jit(module.apply, static_argnames="train")
  return apply(variables, inputs, train=False)


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def perturb(tree, scale=0.3):
  """Adds noise to all leaves, each its own."""
  flat = flax.traverse_util.flatten_dict(tree)
  return flax.traverse_util.unflatten_dict(
      {
          path: x + scale * normal(i, *x.shape)
          for i, (path, x) in enumerate(sorted(flat.items()))
      }
  )


def uniform(module, inputs=(64, 64), kernels=1.0):
  """Returns variables sooner than initialisation does: random, no two alike.

  Args:
    module: As of `abstract`.
    inputs: As of `abstract`.
    kernels: The greatest absolute value in kernels. Others, variances among
      them, are from 0.5 to 1.5.
  """
  rng = np.random.default_rng(0)
  _, shapes = abstract(module, inputs)

  def make(x):
    low, high = (-kernels, kernels) if x.ndim > 1 else (0.5, 1.5)
    return rng.uniform(low, high, x.shape).astype(np.float32)

  return jax.tree.map(make, shapes)


def drawn(module, inputs=(64, 64)):
  """Returns variables about as initialisation draws them, without compiling it.

  Whatever has more than one dimension is normal, its variance one over the fan
  in; the smoothing factors of an encoding are -0.5. Without diagnostics.

  Args:
    module: As of `abstract`.
    inputs: As of `abstract`.
  """
  rng = np.random.default_rng(0)
  shapes = dict(abstract(module, inputs)[1])
  shapes.pop("diagnostics", None)

  def make(path, x):
    owner, name = (part.key for part in path[-2:])
    if x.ndim > 1:
      values = rng.normal(size=x.shape) * np.prod(x.shape[:-1]) ** -0.5
    elif name == "scale":
      values = np.full(x.shape, 1.0 if "bn" in owner else -0.5)
    else:
      values = np.full(x.shape, name in ("var", "low_rank"))
    return values.astype(np.float32)

  return jax.tree_util.tree_map_with_path(make, shapes)


def convolve(x, kernel, dilation=1, groups=1):
  """Convolves [B, H, W, C] tap by tap, with zeros beyond the edges."""
  h, w = x.shape[1:3]
  pad = dilation * (kernel.shape[0] // 2)
  padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  maps = []
  for inputs, weights in zip(
      np.split(padded, groups, -1), np.split(kernel, groups, -1), strict=True
  ):
    total = 0
    for i, j in np.ndindex(kernel.shape[:2]):
      y, z = dilation * i, dilation * j
      total = total + inputs[:, y : y + h, z : z + w] @ weights[i, j]
    maps.append(total)
  return np.concatenate(maps, axis=-1)
