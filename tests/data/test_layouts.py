"""Every layout goes from a user's folder to a score.

Prepared, checked, one training step, an evaluation: with the smallest network,
on miniatures of all layouts that `data` reads.
"""

import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
import pytest
import running

from configs import custom as custom_config
from ctxseg_jax import experiment
from ctxseg_jax.data import check
from ctxseg_jax.data import datasets
from ctxseg_jax.data import prepare

# The data set, how its miniature is written, and the number of images in its
# evaluated split.
LAYOUTS = {
    "ade20k": ("ade20k", {}, 2),
    "camvid": ("camvid", {}, 2),
    "cityscapes": ("cityscapes", {}, 2),
    "cityscapes_train_ids": ("cityscapes", {"train_ids": True}, 2),
    "coco_stuff164k": ("coco_stuff164k", {}, 2),
    "coco_stuff164k_train_ids": ("coco_stuff164k", {"train_ids": True}, 2),
    "coco_voc21": ("coco_voc21", {}, 3),
    "coco_voc21_of_stuff": (
        "coco_voc21",
        {"write": miniatures.write_coco_stuff164k, "size": (150, 160)},
        2,
    ),
    "custom": ("custom", {}, 2),
    "custom_in_colours": ("custom", {"colors": True}, 2),
    "pcontext59": ("pcontext59", {}, 2),
    "pcontext60_mat": ("pcontext60", {"labels": "mat"}, 2),
    "voc2012": ("voc2012", {}, 2),
    "voc2012_sbd_mat": ("voc2012", {"sbd": "mat"}, 2),
}


@pytest.mark.slow
class LayoutsTest(parameterized.TestCase):

  @parameterized.named_parameters((k, *v) for k, v in LAYOUTS.items())
  def test_from_a_folder_to_a_score(self, name, kwargs, num_images):
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    source = root / "source"
    writers = miniatures.WRITERS | {"custom": miniatures.write_custom}
    kwargs = {"write": writers[name], **kwargs}
    kwargs.pop("write")(source, **kwargs)
    flags = [f"--dataset={name}", f"--source={source}"]
    flags += ["--any_size"] if name != "custom" else []
    data_dir = root / "data"
    code, _, err = running.run(prepare, *flags, f"--data_dir={data_dir}")
    self.assertEqual((code, err), (0, ""))
    code, _, err = running.run(check, *flags)
    self.assertEqual((code, err), (0, ""))

    config = custom_config.get_config("smoke")
    config.total_steps = 1
    config.data.crop_size = (16, 16)
    config.model.backbone.channels = 8
    config.model.head = dict(name="fcn", channels=8, dropout_rate=0.0)
    del config.loss.se
    config.data.name = name
    config.data.data_dir = str(root / "data")
    if name == "custom":
      config.data.root = str(source)
    else:
      del config.data.root
    if name == "voc2012":
      config.data.train_split = "trainaug"
    state = experiment.train_and_evaluate(config, str(root / "run"))

    self.assertEqual(int(state.step), 1)
    report = json.loads((root / "run/eval/1.json").read_text())
    self.assertEqual(report["num_images"], num_images)
    if name != "custom":
      spec = datasets.DATASETS[name]
      self.assertEqual(report["class_names"], list(spec.class_names))
    total = np.sum(report["confusion_matrix"])
    self.assertBetween(total, 1, num_images * 150 * 160)
    self.assertBetween(report["miou"], 0, 1)

  def test_every_data_set_is_among_them(self):
    needy = {
        name
        for name, spec in datasets.DATASETS.items()
        if spec.needs_source and spec.task == "segmentation"
    }
    self.assertEmpty(needy - {name for name, *_ in LAYOUTS.values()})


if __name__ == "__main__":
  absltest.main()
