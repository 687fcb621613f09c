"""A parameter average is saved, restored, evaluated and exported."""

import pathlib
import shutil
import tempfile

from absl.testing import absltest
import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny

from configs import quickstart
from ctxseg_jax import experiment
from ctxseg_jax.pretrained import export


class AverageRunTest(absltest.TestCase):

  @pytest.mark.slow
  def test_it_goes_where_the_parameters_would(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.enterContext(tiny.on_one_device())
    workdir = folder / "run"
    config = quickstart.get_config("fcn")
    config.batch_size = 8
    config.total_steps = 4
    config.checkpoint_every = config.eval_every = 2
    config.model.backbone.channels = config.model.head.channels = 8
    config.data.crop_size = (32, 32)
    config.data.data_dir = tiny.data_dir()
    config.data.eval_split = "val[:4]"
    config = config.to_dict()
    config["optim"]["ema_decay"] = 0.9
    whole = experiment.train_and_evaluate(config, workdir)
    # As if it had been stopped after step 2.
    shutil.rmtree(workdir / "checkpoints" / "4")
    resumed = experiment.train_and_evaluate(config, workdir)
    chex.assert_trees_all_equal(resumed.average, whole.average)
    with self.assertRaises(AssertionError):
      chex.assert_trees_all_close(whole.average, whole.params, rtol=1e-6)

    trained = experiment.load(workdir, "last")
    chex.assert_trees_all_equal(trained.variables["params"], whole.average)
    path = folder / "network.safetensors"
    export.export(workdir, path, which="last")
    stored = safetensors.numpy.load_file(path)
    for keys, x in jax.tree_util.tree_leaves_with_path(whole.average):
      name = "/".join(["params", *(key.key for key in keys)])
      np.testing.assert_array_equal(stored[name], x)


if __name__ == "__main__":
  absltest.main()
