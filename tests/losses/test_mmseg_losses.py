"""Our losses give the values and gradients of PyTorch and mmsegmentation.

`golden/make_mmseg_losses.py` computed what is expected here.
"""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import mmseg_names
import numpy as np
import test_mmseg_parity as parity

from ctxseg_jax import losses

FILE = "mmseg_losses.npz"
BY_THRESHOLD = dict(threshold=0.3, min_kept=20)
BY_NUMBER = dict(threshold=0.02, min_kept=200)
ALL = dict(threshold=0.02, min_kept=10_000)

# Loss, options, denominator, images.
CASES = {
    "weighted_cross_entropy": (
        "softmax_cross_entropy",
        dict(class_weights=(0.5, 2.0, 1.5, 0.25, 3.0)),
        "labelled",
        2,
    ),
    "ohem_sampled_threshold": ("ohem_cross_entropy", BY_THRESHOLD, "pixels", 1),
    "ohem_sampled_min_kept": ("ohem_cross_entropy", BY_NUMBER, "pixels", 1),
    "ohem_sampled_all": ("ohem_cross_entropy", ALL, "pixels", 1),
    "ohem_mined_threshold": ("ohem_cross_entropy", BY_THRESHOLD, "labelled", 1),
    "ohem_mined_min_kept": ("ohem_cross_entropy", BY_NUMBER, "labelled", 1),
    "lovasz_softmax": ("lovasz_softmax", {}, "labelled", 2),
    "dice": ("dice", {}, "labelled", 2),
    "focal": ("focal", {}, "pixels", 2),
}


class LossParityTest(parameterized.TestCase):

  def test_every_golden_case_is_compared(self):
    self.assertSameElements([*CASES, "inputs"], parity.cases(FILE))

  @parameterized.parameters(*CASES)
  def test_value_and_gradient(self, case):
    name, options, denominator, num_images = CASES[case]
    golden = parity.Golden(FILE, case)
    labels = jnp.asarray(parity.Golden(FILE, "inputs")["labels"])
    expected = parity.nhwc(golden["gradient"])
    logits = 3.0 * mmseg_names.make_tensor(
        "stage4.features", golden["gradient"].shape
    )

    term = losses.Term(
        output="logits", loss=losses.LOSSES[name], denominator=denominator
    )

    labels = labels[:num_images]

    def loss(logits):
      total, count = term.loss(logits[:num_images], labels, **options)
      return term.mean(total, count, 0, labels.size)

    value, gradient = jax.jit(jax.value_and_grad(loss))(parity.nhwc(logits))
    np.testing.assert_allclose(value, golden["value"], rtol=1e-5)
    np.testing.assert_allclose(
        gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )
