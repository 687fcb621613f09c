"""Loss in chunks is the loss of the upsampled logits."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import networks
import numpy as np
import steps

from ctxseg_jax import losses
from ctxseg_jax.models import resizing
from ctxseg_jax.training import chunks

CE = losses.softmax_cross_entropy


def make_labels(batch, height, width, num_classes):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, num_classes + 1, (batch, height, width))
  return np.where(labels == num_classes, 255, labels).astype(np.uint8)


class ChunksTest(parameterized.TestCase):

  @parameterized.product(
      num_chunks=(1, 3, 20), align_corners=(False, True), name=("ce", "focal")
  )
  def test_values_and_gradients(self, num_chunks, align_corners, name):
    logits = 3 * networks.normal(0, 2, 5, 4, 6)
    labels = make_labels(2, 20, 13, 6)
    loss = dict(ce=CE, focal=losses.focal)[name]
    options = dict(align_corners=align_corners)

    def plain(logits):
      maps = resizing.resize_bilinear(logits, (20, 13), **options)
      return loss(maps, labels, ignore_label=255)

    def chunked(logits):
      return chunks.upsampled_loss(
          loss,
          logits,
          labels,
          num_chunks=num_chunks,
          ignore_label=255,
          **options,
      )

    results = [
        jax.jit(jax.value_and_grad(f, has_aux=True))(logits)
        for f in (plain, chunked)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-6, atol=1e-6)

  def test_a_fraction_of_the_scores_is_in_memory(self):
    # ADE20K: the float32 logits alone are 2,400 MiB.
    logits = jax.ShapeDtypeStruct((16, 64, 64, 150), jnp.float32)
    labels = jax.ShapeDtypeStruct((16, 512, 512), jnp.uint8)

    def loss(logits, labels):
      total, count = chunks.upsampled_loss(
          CE,
          logits,
          labels,
          num_chunks=64,
          align_corners=False,
          ignore_label=255,
      )
      return total / count

    compiled = jax.jit(jax.grad(loss)).lower(logits, labels).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    self.assertLess(temporaries, 0.3 * 2**30)

  def test_the_step_is_the_same(self):
    terms = {
        chunked: {
            name: dict(
                output=output, loss="softmax_cross_entropy", num_chunks=parts
            )
            for name, output, parts in (
                ("main", "logits", chunked),
                ("aux", "aux_logits", 1),
            )
        }
        for chunked in (1, 5)
    }
    plain, chunked = (
        steps.run_steps(*steps.make_step(2, loss=loss))
        for loss in terms.values()
    )
    chex.assert_trees_all_close(plain, chunked, rtol=1e-4, atol=1e-6)

  def test_the_step_has_no_scores_of_the_size_of_the_image(self):
    found = {}
    for parts in (1, 4):
      loss = {
          output: dict(loss="softmax_cross_entropy", num_chunks=parts)
          for output in ("logits", "aux_logits")
      }
      # Not as many classes as images have channels.
      with mock.patch.object(steps, "NUM_CLASSES", 5):
        step, state, put = steps.make_step(2, loss=loss)
      args = (state, put(steps.make_batch()), jax.random.key(1))
      text = step.lower(*args).as_text()
      found[parts] = text.count("tensor<4x16x16x5xf32>")
    self.assertGreater(found[1], 0)
    self.assertEqual(found[4], 0)


if __name__ == "__main__":
  absltest.main()
