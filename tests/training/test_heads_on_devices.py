"""Every head trains alike on several devices and on one."""

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import numpy as np
import pytest
import steps

from ctxseg_jax.models.heads import HEADS

# Tested elsewhere: three in test_step, on eight devices too; EMANet, which
# averages its bases over the devices, in test_attention_heads; "pooled", which
# classifies images, in test_cifar.
TESTED = {"encnet", "encoding_aux", "fcn", "emanet", "pooled"}
# Of convolutions, gates and batch norms alone, or of what DANet is; batch norms
# behind a pooling, which see one value of an image, are in test_pyramids.
PLAIN = {
    *("deeplabv2", "deeplabv2_concat", "deeplabv3", "deeplabv3plus"),
    *("double_attention", "fcn_se", "fcn_vgg", "nonlocal", "pspnet", "sca"),
}


class HeadsTest(parameterized.TestCase):

  @parameterized.parameters(*sorted(set(HEADS) - TESTED - PLAIN))
  def test_every_head_trains_alike_on_2_devices_and_on_1(self, name):
    self._check(name)

  @parameterized.parameters(*sorted(PLAIN))
  @pytest.mark.slow
  def test_so_does_every_plain_one(self, name):
    self._check(name)

  def _check(self, name):
    head = dict(name=name, channels=8)
    # Several chunks of the 16 positions, the last of them not full.
    given = dict(map_size=(4, 4), chunk_size=5)
    given |= {f"{kind}dropout_rate": 0.0 for kind in ("", "aspp_", "decoder_")}
    given["host"] = dict(name="fcn", channels=8, dropout_rate=0.0)
    fields = HEADS[name].__dataclass_fields__
    head |= {k: v for k, v in given.items() if k in fields}
    model = dict(backbone=dict(name="shallow", channels=8), head=head)
    outputs = ["logits"]
    if name == "danet":
      outputs += ["position_logits", "channel_logits"]
    loss = {output: steps.LOSS["logits"] for output in outputs}
    results = []
    for num_devices in (1, 2):
      step, state, put = steps.make_step(num_devices, model, loss)
      state, scalars = step(state, put(steps.make_batch()), jax.random.key(1))
      results.append(jax.device_get((state.params, state.model_state)))
      self.assertTrue(np.isfinite(scalars["loss/total"]))
      chex.assert_tree_all_finite(results[-1])
    chex.assert_trees_all_close(*results, rtol=2e-3, atol=2e-4)


if __name__ == "__main__":
  absltest.main()
