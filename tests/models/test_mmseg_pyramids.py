"""PSPNet, DeepLabV3 and DeepLabV3+ give the numbers of mmsegmentation.

`golden/make_mmseg_pyramids.py` computed what is expected here.
"""

import re

from absl.testing import absltest
from absl.testing import parameterized
import foreign
import jax
import jax.numpy as jnp
import mmseg_names
import numpy as np
import test_mmseg_parity as parity

from ctxseg_jax import losses
from ctxseg_jax.models import resizing
from ctxseg_jax.models.heads import deeplabv3
from ctxseg_jax.models.heads import deeplabv3plus
from ctxseg_jax.models.heads import pspnet

FILE = "mmseg_pyramids.npz"
POOLS = np.load(parity.GOLDEN / "torch_adaptive_pool.npz")
NUM_CLASSES = 5
BATCH = 4

COMMON = dict(num_classes=NUM_CLASSES, channels=6, dropout_rate=0.0)
ASPP = dict(
    rates=(2, 4, 6), project_kernel_size=3, aspp_dropout_rate=0.0, **COMMON
)
PLUS = dict(low_channels=3, separable=True, decoder_dropout_rate=0.0, **ASPP)
HEADS = {
    "pspnet": pspnet.PSPHead(branch_channels=6, **COMMON),
    "pspnet_aligned": pspnet.PSPHead(
        branch_channels=6, bins=(1, 2, 5), align_corners=True, **COMMON
    ),
    "deeplabv3": deeplabv3.DeepLabV3Head(**ASPP),
    "deeplabv3plus": deeplabv3plus.DeepLabV3PlusHead(**PLUS),
    "deeplabv3plus_aligned": deeplabv3plus.DeepLabV3PlusHead(
        align_corners=True, **PLUS
    ),
}


def num_samples(path):
  """Returns how many values a channel of a batch norm averages."""
  for name in path:
    if name == "image_pool":
      return BATCH
    if bins := re.fullmatch(r"bin(\d+)", name):
      return BATCH * int(bins[1]) ** 2
    if name in ("low", "decoder1", "decoder2"):
      return BATCH * 17 * 25
  return BATCH * 9 * 13


class PyramidParityTest(parity.ParityTestCase):

  def test_every_golden_case_is_compared(self):
    self.assertSameElements([*HEADS, "inputs"], parity.cases(FILE))

  def _load(self, name):
    golden = parity.Golden(FILE, name)
    shapes = parity.Golden(FILE, "inputs").shapes("shapes")
    features = {
        k.removesuffix(".features"): parity.nhwc(
            mmseg_names.make_tensor(k, shape)
        )
        for k, shape in shapes.items()
    }
    module = HEADS[name]
    tree = parity.without_diagnostics(parity.template(module, features))
    rows = foreign.rows(module, tree)
    variables = foreign.convert(parity.tensors(golden), rows, tree)
    return golden, features, variables, rows

  def _compare_logits(self, ours, theirs):
    self.assert_near(ours[:2, ::2], parity.nhwc(theirs), name="logits")

  @parameterized.named_parameters((name, name) for name in HEADS)
  def test_logits(self, name):
    golden, features, variables, _ = self._load(name)

    out = HEADS[name].apply(variables, features, train=False)

    self.assertSameElements(out, ["logits"])
    self._compare_logits(out["logits"], golden["logits"])

  @parameterized.named_parameters(
      (name, name) for name in HEADS if not name.endswith("_aligned")
  )
  def test_training(self, name):
    golden, features, variables, rows = self._load(name)
    module = HEADS[name]
    labels = parity.Golden(FILE, "inputs")["labels"]

    def loss_fn(params, features):
      out, updates = module.apply(
          {**variables, "params": params},
          features,
          train=True,
          mutable=["batch_stats"],
      )
      logits = resizing.resize_bilinear(
          out["logits"], labels.shape[1:], align_corners=False
      )
      total, count = losses.softmax_cross_entropy(logits, labels)
      return total / count, (out["logits"], updates["batch_stats"])

    (loss, (logits, batch_stats)), (grads, input_grads) = jax.jit(
        jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    )(variables["params"], features)

    np.testing.assert_allclose(loss, golden["train/loss"], rtol=1e-5)
    self._compare_logits(logits, golden["train/logits"])
    self._compare_statistics(golden, rows, variables, batch_stats)
    expected_grads = golden.under("grad")
    for stage, x in input_grads.items():
      expected = expected_grads.pop(f"{stage}.features", None)
      if expected is None:
        np.testing.assert_array_equal(x, 0.0)
      else:
        self.assert_relatively_near(x[:1], parity.nhwc(expected), name=stage)
    expected_grads = foreign.convert(
        expected_grads,
        foreign.parameters(rows),
        {"params": variables["params"]},
    )["params"]
    jax.tree_util.tree_map_with_path(
        lambda path, x, y: self.assert_relatively_near(
            x, y, name=jax.tree_util.keystr(path)
        ),
        grads,
        expected_grads,
    )

  def _compare_statistics(self, golden, rows, variables, batch_stats):
    theirs = golden.under("train")
    theirs = {k: x for k, x in theirs.items() if "running" in k}
    stats = {"batch_stats": variables["batch_stats"]}
    theirs = foreign.convert(
        theirs, [row for row in rows if row.ours[0] == "batch_stats"], stats
    )["batch_stats"]

    def compare(path, old, new, expected):
      path = [part.key for part in path]
      if path[-1] == "var":
        # PyTorch: 0.9 old + 0.1 var n / (n - 1).
        n = num_samples(path)
        expected = 0.9 * old + (expected - 0.9 * old) * (n - 1) / n
      self.assertGreater(np.abs(expected - old).max(), 1e-2, path)
      np.testing.assert_allclose(
          new, expected, rtol=1e-5, atol=1e-5, err_msg=str(path)
      )

    jax.tree_util.tree_map_with_path(
        compare, stats["batch_stats"], batch_stats, theirs
    )


class AdaptivePoolParityTest(parameterized.TestCase):

  @parameterized.parameters(*[k.removesuffix("/out") for k in POOLS.files])
  def test_adaptive_average_pool(self, name):
    *target, h, w = (int(x) for x in re.findall(r"\d+", name))
    x = mmseg_names.make_tensor(f"{name}.features", (2, 3, h, w))
    expected = POOLS[f"{name}/out"]

    rows = resizing.adaptive_pool_matrix(target[0], h)
    cols = resizing.adaptive_pool_matrix(target[1], w)
    out = resizing.adaptive_average_pool(jnp.asarray(parity.nhwc(x)), target)

    np.testing.assert_allclose(rows @ x @ cols.T, expected, atol=1e-6)
    np.testing.assert_allclose(out, parity.nhwc(expected), atol=1e-6)


if __name__ == "__main__":
  absltest.main()
