"""Tasks, by the name that a `DatasetSpec` gives its own."""

from ctxseg_jax.evaluation.tasks import classification
from ctxseg_jax.evaluation.tasks import segmentation

TASKS = {
    "classification": classification.TASK,
    "segmentation": segmentation.TASK,
}
