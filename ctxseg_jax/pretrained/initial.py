"""`config.init_from`: training that starts from a pretrained backbone."""

from collections.abc import Sequence

from absl import logging
import jax

from ctxseg_jax.models import network
from ctxseg_jax.pretrained import loading


def start(
    init_from: loading.InitFrom,
    model: network.SegmentationModel,
    state: loading.StateT,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> loading.StateT:
  """Returns a new run's state with the backbone of a file.

  Logs what was copied, skipped and left at random.

  Args:
    init_from: The file.
    model: The network.
    state: Initialised, on its devices.
    mean: Mean of the images' channels in training.
    std: Their standard deviation.

  Raises:
    UserError: The file is not usable, or not for this backbone.
  """
  arrays, summary, _ = loading.load(init_from, model, state)
  if jax.process_index() == 0:
    source = init_from.source
    logging.info(
        "Backbone from %s (%s):\n%s", init_from.path, source, summary.table()
    )
    for line in loading.differences(source, model, whole=False):
      logging.warning("init_from: %s.", line)
    expected = loading.normalisation(init_from) or (tuple(mean), tuple(std))
    for key, found, value in zip(
        ("mean", "std"), (mean, std), expected, strict=True
    ):
      if tuple(found) != value:
        logging.warning(
            "init_from: data.%s is %s, the weights of %s were trained with %s.",
            key,
            tuple(found),
            source,
            value,
        )
  return loading.put(state, arrays)
