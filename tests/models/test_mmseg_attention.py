"""Our attention heads give the numbers of mmsegmentation.

`golden/make_mmseg_attention.py` computed what is expected here.
"""

from absl.testing import absltest
from absl.testing import parameterized
import flax
import foreign
import jax
import mmseg_names
import numpy as np
import test_mmseg_parity as parity

from ctxseg_jax import losses
from ctxseg_jax.models.heads import danet
from ctxseg_jax.models.heads import emanet
from ctxseg_jax.models.heads import non_local
from ctxseg_jax.models.resizing import resize_bilinear

FILE = "mmseg_attention.npz"
COMMON = dict(num_classes=5, channels=8, dropout_rate=0.0)
HEADS = {
    # 63 positions: the last chunk is not full.
    "nonlocal": non_local.NonLocalHead(chunk_size=20, **COMMON),
    "danet": danet.DANetHead(query_channels=4, chunk_size=20, **COMMON),
    "emanet": emanet.EMAHead(
        num_bases=6,
        normalize_mean=True,
        concat_input=True,
        **(COMMON | dict(channels=16)),
    ),
}

# Softmax over keys or batch norm cancels these: see `test_heads.CANCELLED`.
CANCELLED = (
    "nl_block.phi.conv.bias",
    "nl_block.g.conv.bias",
    "pam.key_project.bias",
)


class AttentionParityTest(parity.ParityTestCase):

  def test_every_golden_case_is_compared(self):
    self.assertSameElements([*HEADS, "inputs"], parity.cases(FILE))

  def _load(self, name):
    golden = parity.Golden(FILE, name)
    inputs = parity.Golden(FILE, "inputs")
    features = mmseg_names.make_tensor(
        "stage4.features", tuple(inputs["shape"])
    )
    features = {"stage4": parity.nhwc(features)}
    module = HEADS[name]
    tree = parity.template(module, features)
    rows = foreign.rows(module, tree)
    variables = foreign.convert(
        mmseg_names.sharpen(parity.tensors(golden)), rows, tree
    )
    return golden, features, variables, rows, inputs["labels"]

  @parameterized.parameters(*HEADS)
  def test_logits(self, name):
    golden, features, variables, _, _ = self._load(name)

    out = HEADS[name].apply(variables, features, train=False)

    for key, x in out.items():
      self.assert_near(x, parity.nhwc(golden[key]), name=key)

  @parameterized.parameters(*HEADS)
  def test_training(self, name):
    golden, features, variables, rows, labels = self._load(name)
    module = HEADS[name]
    state = dict(variables)
    params = state.pop("params")

    def loss_fn(params, features):
      out, updates = module.apply(
          {"params": params, **state},
          features,
          train=True,
          mutable=list(state),
      )
      loss = 0.0
      for logits in out.values():
        logits = resize_bilinear(logits, labels.shape[1:], align_corners=False)
        total, count = losses.softmax_cross_entropy(logits, labels)
        loss += total / count
      return loss, (out, updates)

    (loss, (out, updates)), (grads, input_grads) = jax.jit(
        jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    )(params, features)

    np.testing.assert_allclose(loss, golden["train/loss"], rtol=1e-5)
    for key, x in out.items():
      self.assert_near(x, parity.nhwc(golden[f"train/{key}"]), name=key)
    self._compare_gradients(golden, rows, params, grads, input_grads["stage4"])
    self._compare_state(golden, rows, state, updates)

  def _compare_gradients(self, golden, rows, params, grads, input_grad):
    theirs = golden.under("grad")
    self.assert_relatively_near(
        input_grad, parity.nhwc(theirs.pop("stage4.features")), name="features"
    )
    flat = flax.traverse_util.flatten_dict(
        foreign.convert(theirs, foreign.parameters(rows), {"params": params})[
            "params"
        ]
    )
    grads = flax.traverse_util.flatten_dict(grads)
    for row in foreign.parameters(rows):
      path = row.ours[1:]
      if row.theirs in CANCELLED:
        self.assertLess(np.abs(flat[path]).max(), 1e-6, path)
        self.assertLess(np.abs(grads[path]).max(), 1e-6, path)
      else:
        self.assert_relatively_near(grads[path], flat[path], name=row.theirs)

  def _compare_state(self, golden, rows, old, new):
    theirs = {k: x for k, x in golden.under("train").items() if "." in k}
    theirs = foreign.convert(
        theirs | self._frozen(golden, rows),
        [row for row in rows if row.ours[0] != "params"],
        old,
    )
    n = 2 * 7 * 9

    def compare(path, old, new, expected):
      name = jax.tree_util.keystr(path)
      if path[0].key == "frozen":
        np.testing.assert_array_equal(new, old, name)
        return
      if path[-1].key == "var":
        # PyTorch: 0.9 old + 0.1 var n / (n - 1).
        expected = 0.9 * old + (expected - 0.9 * old) * (n - 1) / n
      self.assertGreater(np.abs(expected - old).max(), 1e-2, name)
      np.testing.assert_allclose(
          new, expected, rtol=1e-5, atol=1e-5, err_msg=name
      )

    jax.tree_util.tree_map_with_path(compare, old, new, theirs)

  def _frozen(self, golden, rows):
    frozen = {row.theirs for row in rows if row.ours[0] == "frozen"}
    tensors = mmseg_names.sharpen(parity.tensors(golden))
    self.assertEmpty(frozen & set(golden.under("grad")))
    return {name: tensors[name] for name in frozen}


if __name__ == "__main__":
  absltest.main()
