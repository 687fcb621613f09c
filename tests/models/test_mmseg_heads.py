"""Our heads give the numbers of mmsegmentation, evaluated and trained.

`golden/make_mmseg_heads.py` computed what is expected here, with mmsegmentation
1.2.2 and weights that both sides make from the parameters' names.
"""

import re

from absl.testing import parameterized
import foreign
import jax
import mmseg_names
import networks
import numpy as np
import test_mmseg_parity as parity

from ctxseg_jax import losses
from ctxseg_jax.models.heads import danet
from ctxseg_jax.models.heads import deeplabv3
from ctxseg_jax.models.heads import deeplabv3plus
from ctxseg_jax.models.heads import emanet
from ctxseg_jax.models.heads import encnet
from ctxseg_jax.models.heads import fcn
from ctxseg_jax.models.heads import HEADS as HEAD_TYPES
from ctxseg_jax.models.heads import non_local
from ctxseg_jax.models.heads import pspnet
from ctxseg_jax.models.resizing import resize_bilinear
from ctxseg_jax.pretrained.sources import mmseg_shapes

FCN, PYRAMIDS, ATTENTION = (
    f"mmseg_{name}.npz" for name in ("heads", "pyramids", "attention")
)


def fields(channels, **others):
  return dict(num_classes=5, channels=channels, dropout_rate=0.0) | others


TWO = fields(8, num_convs=2, concat_input=True)
PSP = fields(6, branch_channels=6)
ASPP = fields(6, rates=(2, 4, 6), project_kernel_size=3, aspp_dropout_rate=0.0)
PLUS = dict(low_channels=3, separable=True, decoder_dropout_rate=0.0, **ASPP)
# 63 positions: the last chunk is not full.
CHUNKS = fields(8, chunk_size=20)
EMA = dict(num_bases=6, normalize_mean=True, concat_input=True)
HEADS = {
    (FCN, "fcn"): fcn.FCNHead(**TWO),
    (FCN, "fcn_aux"): fcn.FCNHead(**fields(8, stage="stage3")),
    (FCN, "fcn_d6"): fcn.FCNHead(dilation=6, **TWO),
    (FCN, "encnet"): encnet.EncNetHead(**fields(8, num_codewords=4)),
    (FCN, "encnet_lateral"): encnet.EncNetHead(
        **fields(8, num_codewords=4, lateral=True)
    ),
    (PYRAMIDS, "pspnet"): pspnet.PSPHead(**PSP),
    (PYRAMIDS, "pspnet_aligned"): pspnet.PSPHead(
        bins=(1, 2, 5), align_corners=True, **PSP
    ),
    (PYRAMIDS, "deeplabv3"): deeplabv3.DeepLabV3Head(**ASPP),
    (PYRAMIDS, "deeplabv3plus"): deeplabv3plus.DeepLabV3PlusHead(**PLUS),
    (PYRAMIDS, "deeplabv3plus_aligned"): deeplabv3plus.DeepLabV3PlusHead(
        align_corners=True, **PLUS
    ),
    (ATTENTION, "nonlocal"): non_local.NonLocalHead(**CHUNKS),
    (ATTENTION, "danet"): danet.DANetHead(query_channels=4, **CHUNKS),
    (ATTENTION, "emanet"): emanet.EMAHead(**fields(16, **EMA)),
}
TRAINED = [
    case
    for case in HEADS
    if case[1] not in ("fcn_aux", "fcn_d6", "encnet")
    and not case[1].endswith("_aligned")
]

# Softmax over keys or batch norm cancels these: see `test_heads.CANCELLED`.
CANCELLED = (
    "nl_block.phi.conv.bias",
    "nl_block.g.conv.bias",
    "pam.key_project.bias",
)


def num_samples(file, path):
  """Returns how many values a channel of a batch norm averages."""
  if file == ATTENTION:
    return 2 * 7 * 9
  if path[:2] == ["encoding", "bn"]:  # Of the encoding, its 8 channels.
    return 2 * 8
  batch = 2 if file == FCN else 4
  for name in path:
    if name == "image_pool":
      return batch
    if bins := re.fullmatch(r"bin(\d+)", name):
      return batch * int(bins[1]) ** 2
    if name in ("low", "decoder1", "decoder2"):
      return batch * 17 * 25
  return batch * 9 * 13


class HeadParityTest(parity.ParityTestCase):

  @parameterized.parameters(FCN, PYRAMIDS, ATTENTION)
  def test_every_golden_case_is_compared(self, file):
    names = [name for file_of_case, name in HEADS if file_of_case == file]
    self.assertSameElements([*names, "inputs"], parity.cases(file))

  def _load(self, file, name):
    golden, inputs = (parity.Golden(file, case) for case in (name, "inputs"))
    features = {
        k.removesuffix(".features"): parity.nhwc(
            mmseg_names.make_tensor(k, shape)
        )
        for k, shape in inputs.shapes("shapes").items()
    }
    module = HEADS[file, name]
    tree = parity.without_diagnostics(parity.template(module, features))
    rows = foreign.rows(module, tree)
    tensors = mmseg_names.sharpen(parity.tensors(golden))
    variables = foreign.convert(tensors, rows, tree)
    return golden, features, variables, rows, inputs["labels"]

  def _compare_outputs(self, file, outputs, golden, prefix=""):
    for name, x in outputs.items():
      expected = golden[prefix + name]
      if x.ndim == 4:
        expected = parity.nhwc(expected)
      if file == PYRAMIDS:  # Which holds a part of them.
        x = x[:2, ::2]
      self.assert_near(x, expected, name=name)

  @parameterized.parameters(*HEADS)
  def test_names_and_shapes_tell_the_head(self, file, name):
    golden, inputs = (parity.Golden(file, case) for case in (name, "inputs"))
    stages = {
        f"layer{k[5]}.0.conv2.weight": shape[1:]
        for k, shape in inputs.shapes("shapes").items()
    }
    found = mmseg_shapes.head_section(golden.shapes(), stages)
    expected = HEADS[file, name]
    self.assertIs(HEAD_TYPES[found.pop("name")], type(expected))
    told = {k: x for k, x in found.items() if "dropout" not in k}
    self.assertEqual(told, {k: getattr(expected, k) for k in told})
    # What they do not tell has its default, or is told by the file's config.
    default = type(expected)(num_classes=5)
    rest = {
        k
        for k in expected.__dataclass_fields__
        if k not in found and k != "name" and "dropout" not in k
        if getattr(expected, k, None) != getattr(default, k, None)
    }
    self.assertContainsSubset(
        rest, {"align_corners", "bins", "chunk_size", "dilation", "rates"}
    )

  @parameterized.parameters(*HEADS)
  def test_logits(self, file, name):
    golden, features, variables, *_ = self._load(file, name)

    out = networks.evaluate(HEADS[file, name], variables, features)

    names = ["logits"]
    if name.startswith("encnet"):
      names += ["se_logits"]
    elif name == "danet":
      names += ["position_logits", "channel_logits"]
    self.assertSameElements(out, names)
    self._compare_outputs(file, out, golden)

  @parameterized.parameters(*TRAINED)
  def test_training(self, file, name):
    golden, features, variables, rows, labels = self._load(file, name)
    state = dict(variables)
    params = state.pop("params")

    def loss_fn(params, features):
      out, updates = HEADS[file, name].apply(
          {"params": params, **state}, features, train=True, mutable=list(state)
      )
      loss = 0.0
      for x in out.values():
        if x.ndim == 2:
          total, count = losses.presence_bce(x, labels)
          loss += 0.2 * total / count
        else:
          x = resize_bilinear(x, labels.shape[1:], align_corners=False)
          total, count = losses.softmax_cross_entropy(x, labels)
          loss += total / count
      return loss, (out, updates)

    (loss, (out, updates)), (grads, input_grads) = jax.jit(
        jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    )(params, features)

    np.testing.assert_allclose(loss, golden["train/loss"], rtol=1e-5)
    self._compare_outputs(file, out, golden, "train/")
    self._compare_state(file, golden, rows, state, updates)
    theirs = golden.under("grad")
    for stage, x in input_grads.items():
      expected = theirs.pop(f"{stage}.features", None)
      if expected is None:
        np.testing.assert_array_equal(x, 0.0)
      else:
        x = x[:1] if file == PYRAMIDS else x
        self.assert_relatively_near(x, parity.nhwc(expected), name=stage)
    rows = foreign.parameters(rows)
    theirs = foreign.convert(theirs, rows, {"params": params})["params"]
    for row in rows:
      ours, expected = grads, theirs
      for key in row.ours[1:]:
        ours, expected = ours[key], expected[key]
      if row.theirs in CANCELLED:
        self.assertLess(np.abs(expected).max(), 1e-6, row.theirs)
        self.assertLess(np.abs(ours).max(), 1e-6, row.theirs)
      else:
        self.assert_relatively_near(ours, expected, name=row.theirs)

  def _compare_state(self, file, golden, rows, old, new):
    theirs = {k: x for k, x in golden.under("train").items() if "." in k}
    # Frozen tensors have no gradient, and stay what they are.
    frozen = {row.theirs for row in rows if row.ours[0] == "frozen"}
    self.assertEmpty(frozen & set(golden.under("grad")))
    tensors = mmseg_names.sharpen(parity.tensors(golden))
    theirs |= {name: tensors[name] for name in frozen}
    rows = [row for row in rows if row.ours[0] != "params"]
    theirs = foreign.convert(theirs, rows, old)

    def compare(path, old, new, expected):
      path = [part.key for part in path]
      if path[0] == "frozen":
        np.testing.assert_array_equal(new, old, str(path))
        return
      if path[-1] == "var":
        # PyTorch: 0.9 old + 0.1 var n / (n - 1).
        n = num_samples(file, path[1:])
        expected = 0.9 * old + (expected - 0.9 * old) * (n - 1) / n
      self.assertGreater(np.abs(expected - old).max(), 1e-2, path)
      np.testing.assert_allclose(
          new, expected, rtol=1e-5, atol=1e-5, err_msg=str(path)
      )

    jax.tree_util.tree_map_with_path(compare, old, new, theirs)
