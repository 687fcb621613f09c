"""`config.init_from`: training that starts from a pretrained backbone."""

from collections.abc import Mapping
from typing import Any

from absl import logging
import jax

from ctxseg_jax import errors
from ctxseg_jax import settings
from ctxseg_jax.models import network
from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained.sources import SOURCES
from ctxseg_jax.training import step as step_lib


def check(config: Mapping[str, Any]) -> bool:
  """Returns whether a config starts from a file.

  It does not without `init_from`, or if its `path` is empty.

  Raises:
    UserError: An unknown key, source or order of channels.
  """
  section = config.get("init_from") or {}
  settings.check_keys(section, ("source", "path", "channel_order"), "init_from")
  if not section.get("path"):
    if section.get("source"):
      raise errors.UserError(
          f"config: init_from.path: missing, for weights of"
          f" {section['source']}; name the file, or leave out the source"
      )
    return False
  settings.lookup(
      SOURCES, section.get("source", ""), "config: init_from.source"
  )
  order = section.get("channel_order", "rgb")
  known = dict(zip(loading.CHANNEL_ORDERS, loading.CHANNEL_ORDERS, strict=True))
  settings.lookup(known, order, "config: init_from.channel_order")
  return True


def start(
    config: Mapping[str, Any],
    model: network.SegmentationModel,
    state: step_lib.TrainState,
) -> step_lib.TrainState:
  """Returns a new run's state with the backbone of `config.init_from`.

  Logs what was copied, skipped and left at random.

  Args:
    config: The resolved config, checked.
    model: Its network.
    state: Initialised, on its devices.

  Raises:
    UserError: The file is not usable, or not for this backbone.
  """
  section = config["init_from"]
  source, path = section["source"], section["path"]
  order = section.get("channel_order", "rgb")
  arrays, summary, _ = loading.load(
      model, state, source=source, path=path, channel_order=order
  )
  if jax.process_index() == 0:
    logging.info("Backbone from %s (%s):\n%s", path, source, summary.table())
    for line in loading.differences(source, model, whole=False):
      logging.warning("init_from: %s.", line)
    _compare_normalisation(config["data"], source, path, order)
  return loading.put(state, arrays)


def _compare_normalisation(data, source, path, order):
  expected = loading.normalisation(source, path, order)
  if expected is None:
    return
  for key, value in zip(("mean", "std"), expected, strict=True):
    if tuple(data[key]) != value:
      logging.warning(
          "init_from: data.%s is %s, the weights of %s were trained with %s.",
          key,
          tuple(data[key]),
          source,
          value,
      )
