"""Shapes, counts and values of variables, for the tests of modules."""

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
    module: A module with the argument `train`.
    inputs: What it is applied to; of images the size will do.
  """
  if isinstance(inputs, tuple):
    inputs = jnp.zeros((1, *inputs, 3))
  return jax.eval_shape(
      lambda: module.init_with_output(jax.random.key(0), inputs, train=False)
  )


def num_params(module, inputs=(64, 64)):
  _, variables = abstract(module, inputs)
  return sum(x.size for x in jax.tree.leaves(variables["params"]))


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
    module: A module with the argument `train`.
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
