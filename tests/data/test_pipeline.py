"""Tests for ctxseg_jax.data.pipeline."""

import contextlib
import hashlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import pipeline
from ctxseg_jax.data import transforms

LENGTH = 23  # No multiple of any batch size below: batches cross epochs.


class _Source:
  """Examples that tell which one they are."""

  def __init__(self, length=LENGTH, broken=None):
    self._length = length
    self._broken = broken

  def __len__(self):
    return self._length

  def __getitem__(self, index):
    if index == self._broken:
      raise errors.UserError("train/a7.png: damaged; expected a whole file.")
    rng = np.random.default_rng(index)
    return {
        "image": rng.integers(0, 256, (20, 30, 3), np.uint8),
        "label": np.full((20, 30), index, np.uint8),
        "name": f"a{index}",
    }


AUGMENTATION = transforms.Augmentation(
    crop_size=(12, 16), scale_range=(0.5, 2.0), rotation=10.0, flip=True
)
# Holds a stream with two workers until it is killed.
HOLDER = textwrap.dedent("""
    import multiprocessing
    import time

    import test_pipeline
    from ctxseg_jax.data import pipeline

    if __name__ == "__main__":
      batches = pipeline.train_batches(
          test_pipeline._Source(), test_pipeline.AUGMENTATION, batch_size=4,
          seed=0, num_workers=2)
      for _ in range(2):  # One of each worker: both are up.
        next(batches)
      pids = [p.pid for p in multiprocessing.active_children()]
      print(*pids, flush=True)
      time.sleep(600)
""")


def _stream(count, **kwargs):
  options = dict(source=_Source(), batch_size=8, seed=0) | kwargs
  batches = pipeline.train_batches(augmentation=AUGMENTATION, **options)
  try:
    return [next(batches) for _ in range(count)]
  finally:
    batches.close()


def _assert_equal_batches(actual, expected):
  assert len(actual) == len(expected)
  for one, other in zip(actual, expected, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


class TrainBatchesTest(parameterized.TestCase):

  def test_shapes_and_types(self):
    (batch,) = _stream(1)
    self.assertSameElements(batch, ["image", "label", "index"])
    self.assertEqual(batch["image"].shape, (8, 12, 16, 3))
    self.assertEqual(batch["label"].shape, (8, 12, 16))
    types = [str(batch[name].dtype) for name in ("image", "label", "index")]
    self.assertEqual(types, ["uint8", "uint8", "int32"])

  def test_index_names_the_example(self):
    for batch in _stream(5):
      for label, index in zip(batch["label"], batch["index"], strict=True):
        self.assertContainsSubset(np.unique(label), [index, 255])

  def test_epochs_are_complete_and_differ(self):
    indices = np.concatenate([b["index"] for b in _stream(LENGTH)])
    epochs = indices.reshape(8, LENGTH)
    for epoch in epochs:
      self.assertSetEqual(set(epoch.tolist()), set(range(LENGTH)))
    self.assertLen({tuple(epoch) for epoch in epochs}, 8)

  def test_every_epoch_draws_anew(self):
    crops = {}
    for batch in _stream(LENGTH):
      for index, image in zip(batch["index"], batch["image"], strict=True):
        crops.setdefault(int(index), set()).add(image.tobytes())
    self.assertGreater(min(len(images) for images in crops.values()), 6)

  def test_seed_decides(self):
    _assert_equal_batches(_stream(3, seed=5), _stream(3, seed=5))
    orders = [
        np.concatenate([b["index"] for b in _stream(LENGTH, seed=seed)])
        for seed in range(3)
    ]
    # Neighbouring seeds do not share an order one epoch apart.
    epochs = {tuple(e) for order in orders for e in order.reshape(8, LENGTH)}
    self.assertLen(epochs, 24)

  def test_the_order_is_what_it_always_was(self):
    # Recorded with version 0.1: a resumed run depends on it.
    (first, second), (third,) = _stream(2), _stream(1, seed=7)
    self.assertEqual(first["index"].tolist(), [18, 8, 16, 7, 20, 13, 1, 0])
    self.assertEqual(second["index"].tolist(), [19, 17, 10, 9, 21, 15, 3, 2])
    self.assertEqual(third["index"].tolist(), [3, 8, 11, 22, 16, 4, 9, 5])
    (part,) = _stream(1, seed=3, shard=(1, 2), step=5)
    self.assertEqual(part["index"].tolist(), [22, 2, 13, 1])
    # With the pixels that were drawn.
    digest = hashlib.sha256()
    for batch in _stream(3, seed=3):
      digest.update(batch["label"].tobytes())
    self.assertEqual(digest.hexdigest()[:16], "d71f2ef7a3458f9d")

  def test_batches_of_one_have_the_same_order(self):
    (whole,) = _stream(1)
    ones = np.concatenate([b["index"] for b in _stream(8, batch_size=1)])
    np.testing.assert_array_equal(ones, whole["index"])

  @parameterized.parameters(1, 7, 100)
  def test_resumed_stream_continues(self, step):
    for shard in ((0, 1), (1, 2)):
      _assert_equal_batches(
          _stream(3, step=step, shard=shard),
          _stream(step + 3, shard=shard)[step:],
      )

  @parameterized.parameters(2, 8)
  def test_shards_are_parts_of_the_global_batch(self, count):
    whole = _stream(6)
    parts = [_stream(6, shard=(i, count)) for i in range(count)]
    joined = [
        {name: np.concatenate([b[name] for b in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    _assert_equal_batches(joined, whole)

  def test_skipped_steps_cost_nothing(self):
    start = time.monotonic()
    _stream(1, step=10**7)
    self.assertLess(time.monotonic() - start, 5)

  def test_source_of_one_example(self):
    batches = _stream(2, source=_Source(length=1), batch_size=3)
    self.assertEqual(batches[1]["index"].tolist(), [0, 0, 0])

  @parameterized.parameters(0, 2)
  def test_error_of_the_source_surfaces(self, num_workers):
    with self.assertRaisesRegex(errors.UserError, "^train/a7.png: damaged;"):
      _stream(LENGTH, source=_Source(broken=7), num_workers=num_workers)

  def test_bad_numbers_are_named(self):
    for message, options in (
        ("batch_size: 9 .* 2 proc", dict(batch_size=9, shard=(0, 2))),
        ("training split is empty", dict(source=_Source(length=0))),
    ):
      with self.assertRaisesRegex(errors.UserError, message):
        _stream(1, **options)
    with self.assertRaisesRegex(ValueError, "shard"):
      _stream(1, shard=(2, 2))

  def test_workers_change_no_batch_also_when_they_are_killed(self):
    options = dict(source=_Source(), batch_size=8, seed=0, step=2, shard=(1, 2))
    expected = _stream(12, **options)
    before = _shared_memory()
    batches = pipeline.train_batches(
        augmentation=AUGMENTATION, num_workers=2, **options
    )
    with contextlib.closing(batches):
      actual = [next(batches) for _ in range(3)]
      self.assertIs(type(actual[0]["image"]), np.ndarray)
      # What has a name would be left behind if all processes were killed.
      self.assertEqual(_shared_memory(), before)
      _kill_a_worker()
      actual += [next(batches) for _ in range(4)]
      for _ in multiprocessing.active_children():
        _kill_a_worker()
      actual += [next(batches) for _ in range(5)]
      _assert_equal_batches(actual, expected)
      # Once in a thousand steps is bad luck; again and again is not.
      with self.assertRaisesRegex(
          errors.UserError, r"^data.num_workers: 4 input .*SIGKILL.* lower"
      ):
        while True:
          _kill_a_worker()
          for _ in range(8):
            next(batches)
    self.assertEmpty(multiprocessing.active_children())

  def test_killed_parent_leaves_no_workers(self):
    root = pathlib.Path(__file__).parents[2]
    folder = self.enterContext(tempfile.TemporaryDirectory())
    script = pathlib.Path(folder, "holder.py")
    script.write_text(HOLDER)
    path = os.pathsep.join([str(root), str(root / "tests" / "data")])
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
      workers = [int(pid) for pid in parent.stdout.readline().split()]
      self.assertLen(workers, 2)
      self.assertTrue(all(_is_alive(pid) for pid in workers))
      # A signal to the group must not take the workers from under a parent
      # that wants to finish its step.
      os.kill(workers[0], signal.SIGTERM)
      os.kill(workers[1], signal.SIGINT)
      time.sleep(0.5)
      self.assertTrue(all(_is_alive(pid) for pid in workers))
    finally:
      parent.send_signal(signal.SIGKILL)
      parent.wait()
      parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(_is_alive(pid) for pid in workers):
      self.assertLess(time.monotonic(), deadline, "workers outlived the parent")
      time.sleep(0.1)


def _shared_memory():
  # But for semaphores, which pools of other tests hold.
  paths = pathlib.Path("/dev/shm").iterdir()
  return {path for path in paths if not path.name.startswith("sem.")}


def _kill_a_worker():
  worker = multiprocessing.active_children()[0]
  worker.kill()
  worker.join()


def _is_alive(pid):
  try:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except FileNotFoundError:
    return False
  return stat.rsplit(")", maxsplit=1)[1].split()[0] != "Z"


if __name__ == "__main__":
  absltest.main()
