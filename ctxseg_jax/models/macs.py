"""Counts the multiply-accumulates of a computation, module by module.

The computation is traced, not run: images of any size take seconds. What would
be executed is counted, equation by equation; no layer has a formula of its own.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import math
import re
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from ctxseg_jax.models.coarse import JoinedConv
from ctxseg_jax.models.convolution import POINTWISE
from ctxseg_jax.models.resizing import FIXED_MATRICES

# The kinds of work that count, and those of them that every table counts.
KINDS = ("conv", "matmul", "batch_norm", "relu", "max_pool")
PRODUCTS = ("conv", "matmul")

CONVENTION = (
    "Multiply-accumulates (MACs) of one forward pass of evaluation on one"
    " image, as traced. A convolution counts its kernel once per output"
    " position, also where it lies on padding or on an upsampled map; a"
    " transposed one, once per input position. Matrix products count as"
    " executed: those of attention too, with the padding of the last chunk of"
    " queries. MACs add to these, as the tables of published networks do, 2 per"
    " element of a batch norm, 1 per element of a ReLU and the window's area"
    " per output of a max pooling. Nothing else counts: resizing, average"
    " pooling, softmax, sums, biases, gates, dropout."
)

Counts = collections.Counter[tuple[tuple[str, ...], str]]

_MODULE = "module:"
_BATCH_NORM = "macs_batch_norm"
# A convolution as a whole, with the MACs of an element; what is in it is not
# counted.
_CONV, _INSIDE = "macs_conv:", "macs_inside"


def count(
    function: Callable[..., Any], *args: Any
) -> tuple[Counts, Any, list[str]]:
  """Traces a function that applies modules, and counts its work.

  Args:
    function: A function of arrays.
    *args: Its arguments; `jax.ShapeDtypeStruct`s will do.

  Returns:
    The counts, by path of the innermost module that does the work and by kind
    (of `KINDS`), in the order of execution; the shapes of what the function
    returns; notes on what depends on values, which a trace does not have.
  """
  with nn.intercept_methods(_mark):
    # A function of its own, as traces are cached by function.
    jaxpr, shapes = jax.make_jaxpr(
        lambda *args: function(*args), return_shape=True
    )(*args)
  notes = []
  return _count(jaxpr.jaxpr, (), notes), shapes, notes


def _mark(next_fun, args, kwargs, context):
  """Leaves the paths of modules, and batch norms, in what is traced."""
  module = context.module
  if module.scope is None:
    return next_fun(*args, **kwargs)
  with jax.named_scope(_MODULE + ".".join(module.path)):
    if isinstance(module, JoinedConv):
      with jax.named_scope(_INSIDE):
        out = next_fun(*args, **kwargs)
      kernel = module.get_variable("params", "kernel")
      macs = math.prod(kernel.shape[:-1])
      return checkpoint_name(out, f"{_CONV}{macs}")
    out = next_fun(*args, **kwargs)
    if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
      out = checkpoint_name(out, _BATCH_NORM)
    return out


def _count(jaxpr, outer, notes) -> Counts:
  """Counts a jaxpr that the module at the path `outer` executes once."""
  counts = collections.Counter()
  for eqn in jaxpr.eqns:
    scopes = str(eqn.source_info.name_stack)
    if FIXED_MATRICES in scopes or _INSIDE in scopes:
      continue
    # Scopes inside of loops and the like start anew.
    paths = re.findall(rf"{_MODULE}([^/)]*)", scopes)
    path = tuple(filter(None, paths[-1].split("."))) if paths else outer
    kind, macs = _own_work(eqn)
    if kind == "matmul" and POINTWISE in scopes:
      kind = "conv"
    if kind is not None:
      counts[path, kind] += macs
      continue
    inner = [_count(x, path, notes) for x in _inner_jaxprs(eqn)]
    if not any(inner):
      continue
    where = "/".join(path) or "model"
    if eqn.primitive.name == "cond":
      # Those for different platforms are the same computation.
      by_platform = eqn.params.get("branches_platforms")
      if not by_platform and any(x != inner[0] for x in inner):
        notes.append(f"{where}: of the branches of a condition, the costliest")
      inner = [max(inner, key=lambda x: x.total())]
    if eqn.primitive.name == "while":
      notes.append(f"{where}: of a loop of unknown length, one iteration")
    repeats = 1
    if eqn.primitive.name == "scan":
      repeats = eqn.params["length"]
    elif eqn.primitive.name == "shard_map":
      repeats = eqn.params["mesh"].size  # Inside are the shapes of a device.
    for work in inner:
      counts.update({key: repeats * macs for key, macs in work.items()})
  return counts


def _inner_jaxprs(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
  """Yields the jaxprs that an equation calls: of jit, scan, cond..."""
  for value in eqn.params.values():
    for x in value if isinstance(value, tuple | list) else (value,):
      if isinstance(x, core.ClosedJaxpr):
        yield x.jaxpr
      elif isinstance(x, core.Jaxpr):
        yield x


def _own_work(eqn: core.JaxprEqn) -> tuple[str | None, int]:
  """Returns kind and number of MACs of an equation; None if it has none."""
  name = eqn.primitive.name
  params = eqn.params
  size = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
  if name == "conv_general_dilated":
    return "conv", _conv_macs(eqn)
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return "matmul", size * math.prod(lhs[i] for i in contracted)
  if name == "name" and params["name"] == _BATCH_NORM:
    return "batch_norm", 2 * size
  if name == "name" and params["name"].startswith(_CONV):
    return "conv", size * int(params["name"].removeprefix(_CONV))
  if name in ("jit", "pjit") and params["name"] == "relu":
    return "relu", size
  if name == "reduce_window_max":
    return "max_pool", size * math.prod(params["window_dimensions"])
  return None, 0


def _conv_macs(eqn: core.JaxprEqn) -> int:
  numbers = eqn.params["dimension_numbers"]
  lhs, rhs = (x.aval.shape for x in eqn.invars)
  out = eqn.outvars[0].aval.shape
  batch, channels, *out_axes = numbers.out_spec
  _, in_channels, *kernel_axes = numbers.rhs_spec
  # The kernel's input channels are those of one group.
  macs = out[batch] * out[channels] * rhs[in_channels]
  macs *= math.prod(rhs[i] for i in kernel_axes)
  for lhs_axis, out_axis, dilation in zip(
      numbers.lhs_spec[2:], out_axes, eqn.params["lhs_dilation"], strict=True
  ):
    # Zeros between the pixels, of a transposed convolution, are no work.
    macs *= out[out_axis] if dilation == 1 else lhs[lhs_axis]
  return macs
