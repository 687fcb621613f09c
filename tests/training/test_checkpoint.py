"""Tests for ctxseg_jax.checkpoint."""

import functools
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxseg_jax import errors
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training.checkpoint import arrays
from ctxseg_jax.training.checkpoint import folders
from ctxseg_jax.training.checkpoint import manager

P = jax.sharding.PartitionSpec
ROOT = pathlib.Path(__file__).parents[2]


@flax.struct.dataclass
class State:
  step: jax.Array
  params: dict
  model_state: dict
  opt_state: tuple


def replicated(num_devices=1):
  mesh = jax.sharding.Mesh(jax.devices()[:num_devices], ("data",))
  return jax.sharding.NamedSharding(mesh, P())


def make_state(step, num_devices=1, channels=4):
  """Returns a state whose every value depends on the step."""
  rng = np.random.default_rng(step)
  params = {
      "backbone": {
          "stem": {"kernel": rng.normal(size=(3, 3, 3, channels))},
          "norm": {"scale": rng.normal(size=channels)},
      },
      "head": {"kernel": rng.normal(size=(channels, 5))},
  }
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
  # Masked and partitioned transformations have containers without arrays.
  tx = optax.chain(
      optax.masked(
          optax.add_decayed_weights(1e-4), {"backbone": True, "head": False}
      ),
      optax.multi_transform(
          {"slow": optax.sgd(0.1, momentum=0.9), "fast": optax.adam(0.1)},
          {"backbone": "slow", "head": "fast"},
      ),
  )
  opt_state = jax.tree.map(lambda x: x + step, tx.init(params))
  model_state = {"batch_stats": {"mean": jnp.arange(8.0) * step}, "none": {}}
  state = State(jnp.int32(step), params, model_state, opt_state)
  return jax.device_put(state, replicated(num_devices))


def write(directory, *steps, **kwargs):
  with checkpoint.Checkpoints(directory, **kwargs) as checkpoints:
    for step in steps:
      checkpoints.save(step, make_state(step))


def restore(directory, target=None):
  with checkpoint.Checkpoints(directory) as checkpoints:
    return checkpoints.restore(target or make_state(0))


def names(directory):
  return sorted(path.name for path in directory.iterdir())


def files(step_dir):
  paths = sorted(path for path in step_dir.rglob("*") if path.is_file())
  return [path.relative_to(step_dir).as_posix() for path in paths]


def equal(a, b):
  return jax.tree.structure(a) == jax.tree.structure(b) and all(
      x.dtype == y.dtype and np.array_equal(x, y)
      for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def make_directory(test):
  return pathlib.Path(test.enterContext(tempfile.TemporaryDirectory()))


def truncate(path):
  os.truncate(path, path.stat().st_size // 2)


def empty(path):
  os.truncate(path, 0)


def flip(path, position=0.5, mask=1):
  """Changes bits of the byte at a position, 0 to 1."""
  data = bytearray(path.read_bytes())
  data[int(position * len(data))] ^= mask
  path.write_bytes(data)


class CheckpointsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.directory = make_directory(self) / "ckpt"

  def test_restores_what_was_saved(self):
    self.assertIsNone(restore(self.directory))
    write(self.directory, 3)
    state, step = restore(self.directory)
    self.assertEqual(step, 3)
    self.assertTrue(equal(state, make_state(3)))
    self.assertFalse(equal(state, make_state(4)))

  def test_a_manifest_lists_every_file_and_array(self):
    write(self.directory, 1)
    step_dir = self.directory / "1"
    manifest = json.loads((step_dir / folders.MANIFEST).read_text())
    self.assertSameElements(
        [*manifest["files"], folders.MANIFEST], files(step_dir)
    )
    self.assertEqual(manifest["arrays"]["params/head/kernel"], "float32[4,5]")

  def test_a_step_is_reported_once_and_only_when_complete(self):
    with (
        checkpoint.Checkpoints(self.directory) as checkpoints,
        mock.patch.object(manager, "logging") as log,
    ):
      checkpoints.save(1, make_state(1))
      while not log.info.called:
        checkpoints.poll()
      self.assertTrue((self.directory / "1" / folders.MANIFEST).exists())
      checkpoints.save(2, make_state(2))
      checkpoints.save(3, make_state(3))
      checkpoints.wait()
      checkpoints.poll()
    reported = [call.args[1:] for call in log.info.call_args_list]
    self.assertEqual(reported, [(step, "ckpt") for step in (1, 2, 3)])

  def test_keeps_the_newest(self):
    write(self.directory, 1, 2, 3, 4, max_to_keep=2)
    self.assertEqual(names(self.directory), ["3", "4"])

  def test_saving_the_same_step_again_does_nothing(self):
    with checkpoint.Checkpoints(self.directory) as checkpoints:
      checkpoints.save(5, make_state(5))
      checkpoints.wait()
      written = (self.directory / "5").stat()
      checkpoints.save(5, make_state(5))
    with checkpoint.Checkpoints(self.directory) as checkpoints:
      checkpoints.restore(make_state(0))
      checkpoints.save(5, make_state(5))
    self.assertEqual((self.directory / "5").stat().st_ino, written.st_ino)

  def test_state_may_be_donated_after_save(self):
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jax.device_put(jnp.zeros((512, 512)), replicated())
    with checkpoint.Checkpoints(self.directory) as checkpoints:
      checkpoints.save(1, {"x": x})
      for _ in range(3):
        x = add_one(x)
      checkpoints.wait()
    state, _ = checkpoint.load(self.directory)
    np.testing.assert_array_equal(state["x"], 0.0)

  @parameterized.parameters(
      "run[1]", "lr=[0.01]", "a*b?", "back\\slash", "ünï", "50%", "a b#c"
  )
  def test_folders_of_any_name_work(self, name):
    directory = self.directory / name / "checkpoints"
    write(directory, 1, 2)
    state, step = restore(directory)
    self.assertEqual(step, 2)
    self.assertTrue(equal(state, make_state(2)))
    checkpoint.save_best(self.directory / name / "best", 2, state)
    state, _ = checkpoint.load(self.directory / name / "best")
    self.assertTrue(equal(state["params"], make_state(2).params))
    # TensorStore takes a backslash for a slash.
    self.assertEqual(os.listdir(self.directory), [name])

  @parameterized.parameters(
      dict(side_effect=ValueError("not found")), dict(return_value={"x": "f"})
  )
  def test_what_cannot_be_read_back_is_not_saved(self, **listing):
    with checkpoint.Checkpoints(self.directory) as checkpoints:
      checkpoints.save(1, make_state(1))
      checkpoints.wait()
      with mock.patch.object(arrays, "listing", **listing):
        with self.assertRaisesRegex(errors.UserError, "step 2 could not be"):
          checkpoints.save(2, make_state(2))
          checkpoints.wait()
    self.assertEqual(os.listdir(self.directory), ["1"])

  def test_a_state_without_collections_is_restored(self):
    # A network without batch norm has no `model_state`.
    state = make_state(1).replace(model_state={})
    with checkpoint.Checkpoints(self.directory) as checkpoints:
      checkpoints.save(1, state)
    loaded, _ = checkpoint.load(self.directory)
    self.assertSameElements(loaded, ["step", "params", "opt_state"])
    target = make_state(0).replace(model_state={})
    self.assertTrue(equal(restore(self.directory, target)[0], state))

  @parameterized.parameters((8, 1), (1, 8), (2, 4))
  def test_restores_on_another_number_of_devices(self, before, after):
    if jax.device_count() < 8:
      self.skipTest("Needs 8 devices.")
    with checkpoint.Checkpoints(self.directory) as checkpoints:
      checkpoints.save(7, make_state(7, before))
      checkpoints.wait()
      sharding = replicated(after)
      target = jax.tree.map(
          lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
          make_state(0),
      )
      state, _ = checkpoints.restore(target)
    self.assertTrue(equal(state, make_state(7)))
    for leaf in jax.tree.leaves(state):
      self.assertEqual(leaf.sharding, sharding)

  def test_another_model_is_listed(self):
    write(self.directory, 1)
    target = make_state(0, channels=6)
    params = dict(target.params)
    params["neck"] = params.pop("head")
    target = target.replace(params=params)
    with self.assertRaises(errors.UserError) as caught:
      restore(self.directory, target)
    self.assertEqual(names(self.directory), ["1"])
    message = str(caught.exception)
    for part in (
        str(self.directory),
        "1 missing (params/neck/kernel)",
        "1 unexpected (params/head/kernel)",
        "2 of another shape or type (",
        "params/backbone/stem/kernel is float32[3,3,3,4], expected"
        " float32[3,3,3,6]",
    ):
      self.assertIn(part, message)
    self.assertNotIn("\n", message)
    self.assertNotIn("opt_state", message)


class DamageTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.root = make_directory(self)
    write(self.root / "two", 1, 2)
    write(self.root / "one", 2)

  def restore(self, source, change, name):
    """Restores from a fresh copy of a directory with one file changed."""
    copy = self.root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(self.root / source, copy)
    change(copy / "2" / name)
    return restore(copy)

  @parameterized.parameters(truncate, empty, flip, pathlib.Path.unlink)
  def test_damage_of_any_file_is_found(self, change):
    damaged = files(self.root / "two" / "2")
    self.assertGreater(len(damaged), 8)
    for name in damaged:
      with self.subTest(name):
        state, step = self.restore("two", change, name)
        self.assertEqual(step, 1)
        self.assertTrue(equal(state, make_state(1)))
        self.assertEqual(names(self.root / "copy"), ["1", "2.damaged"])
    for name in files(self.root / "one" / "2"):  # Without a step before it.
      with self.subTest(name):
        with self.assertRaisesRegex(errors.UserError, name):
          self.restore("one", change, name)
        # Nothing was renamed: the next start must not find an empty folder.
        self.assertEqual(names(self.root / "copy"), ["2"])

  def test_only_quarantined_steps_are_an_error(self):
    self.restore("two", flip, "state/_METADATA")
    shutil.rmtree(self.root / "copy" / "1")
    with self.assertRaisesRegex(errors.UserError, "2.damaged was set aside"):
      restore(self.root / "copy")

  def test_a_quarantined_step_is_saved_again(self):
    self.restore("two", flip, "state/_METADATA")
    with checkpoint.Checkpoints(self.root / "copy") as checkpoints:
      checkpoints.restore(make_state(0))
      checkpoints.save(2, make_state(2))
      checkpoints.wait()
      self.assertEqual(checkpoints.steps(), [1, 2])

  def test_a_copy_without_manifests_is_refused_and_kept(self):
    def change(step_dir):
      for path in step_dir.parent.glob("*/manifest.json"):
        path.unlink()

    with self.assertRaisesRegex(errors.UserError, "2/manifest.json.*1/mani"):
      self.restore("two", change, "")
    self.assertEqual(names(self.root / "copy"), ["1", "2"])

  @parameterized.parameters(
      ({"2": "3"}, "3 holds step 2: it was renamed"),
      ({"1": "tmp", "2": "1", "tmp": "2"}, "2 holds step 1: it was renamed"),
  )
  def test_renamed_steps_are_not_taken_for_what_they_are_not(
      self, renames, message
  ):
    source = "one" if len(renames) == 1 else "two"

    def change(step_dir):
      for old, new in renames.items():
        (step_dir.parent / old).rename(step_dir.parent / new)

    with self.assertRaisesRegex(errors.UserError, message):
      self.restore(source, change, "")
    with self.assertRaisesRegex(errors.UserError, message):
      checkpoint.load(self.root / "copy")

  @parameterized.parameters(
      {"files": []},
      {"files": {"state/_METADATA": 5}},
      {"files": {"../../1": {"size": 1, "sha256": ""}}},
      {"files": {"/dev/zero": {"size": 0, "sha256": ""}}},
      {"arrays": {}},
      {"arrays": {"params/x": "float32[1000000000,1000000000]"}},
      {"step": "2x"},
      {"format": None},
  )
  def test_a_forged_manifest_is_damage(self, **forged):
    def change(path):
      manifest = json.loads(path.read_text()) | forged
      del manifest["sha256"]
      manifest["sha256"] = folders._checksum(manifest)
      path.write_text(json.dumps(manifest))

    _, step = self.restore("two", change, folders.MANIFEST)
    self.assertEqual(step, 1)

  @parameterized.parameters(
      lambda text: "[" * 100_000,
      # Damage, and not another model.
      lambda text: text.replace("float32[4,5]", "float32[4,6]"),
  )
  def test_an_edited_manifest_is_damage(self, edited):
    def change(path):
      path.write_text(edited(path.read_text()))

    self.assertEqual(self.restore("two", change, folders.MANIFEST)[1], 1)

  def test_folders_that_no_save_made_are_kept(self):
    copy = self.root / "copy"
    shutil.copytree(self.root / "two", copy)
    for name in ("0", "00", "notes", "1.old"):
      (copy / name).mkdir()
      (copy / name / "a.txt").write_text("mine")
    with checkpoint.Checkpoints(copy, max_to_keep=1) as checkpoints:
      checkpoints.restore(make_state(0))
      checkpoints.save(3, make_state(3))
    self.assertEqual(names(copy), ["0", "00", "1.old", "3", "notes"])

  def test_warning_names_the_file_and_the_step_used(self):
    with self.assertLogs(level="WARNING") as logs:
      self.restore("two", flip, "state/_METADATA")
    self.assertLen(logs.output, 1)
    self.assertIn("copy/2/state/_METADATA", logs.output[0])
    self.assertIn("using step 1", logs.output[0])

  def test_flipped_bits_never_change_weights(self):
    rng = np.random.default_rng(0)
    paths = files(self.root / "two" / "2")
    for _ in range(30):
      name = paths[rng.integers(len(paths))]
      bit = 1 << rng.integers(8)
      change = functools.partial(flip, position=rng.random(), mask=bit)
      state, step = self.restore("two", change, name)
      self.assertTrue(equal(state, make_state(step)))

  def test_load_changes_nothing_and_falls_back(self):
    flip(self.root / "two" / "2" / "state" / "_METADATA")
    state, step = checkpoint.load(self.root / "two")
    self.assertEqual(step, 1)
    self.assertTrue(equal(state["params"], make_state(1).params))
    self.assertTrue((self.root / "two" / "2").exists())
    with self.assertRaisesRegex(errors.UserError, "state/_METADATA"):
      checkpoint.load(self.root / "two", step=2)


class LoadTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.directory = make_directory(self) / "ckpt"

  def test_gives_numpy(self):
    write(self.directory, 1, 2)
    state, step = checkpoint.load(self.directory, step=1)
    self.assertEqual(step, 1)
    expected = make_state(1)
    self.assertTrue(equal(state["params"], expected.params))
    found, expected = state["model_state"], expected.model_state
    self.assertTrue(equal(found["batch_stats"], expected["batch_stats"]))
    for leaf in jax.tree.leaves(state):
      self.assertIsInstance(leaf, np.ndarray)
    with self.assertRaisesRegex(errors.UserError, r"no step 9.*\[1, 2\]"):
      checkpoint.load(self.directory, step=9)

  def test_absent(self):
    with self.assertRaisesRegex(errors.UserError, "none is there"):
      checkpoint.load(self.directory)

  def test_best_is_replaced(self):
    for step in (4, 8, 6, 6):  # 6 after 8: the run was set back.
      checkpoint.save_best(self.directory, step, make_state(step))
      self.assertEqual(names(self.directory), [str(step)])
      state, loaded = checkpoint.load(self.directory)
      self.assertEqual(loaded, step)
      self.assertTrue(equal(state["params"], make_state(step).params))


# Saves steps 1, 2, ... and prints each once it is reported complete.
CHILD = textwrap.dedent("""
    import os
    import sys
    sys.path[:0] = sys.argv[2:]
    import faults
    import test_checkpoint
    from ctxseg_jax.training import checkpoint

    with checkpoint.Checkpoints(sys.argv[1], max_to_keep=1) as checkpoints:
      resumed = checkpoints.restore(test_checkpoint.make_state(0))
      first = resumed[1] + 1 if resumed else 1
      for step in range(first, int(os.environ["LAST"]) + 1):
        if step == 3 and os.environ["FAULT"]:
          faults.die_at(os.environ["FAULT"])
        state = test_checkpoint.make_state(step)
        checkpoints.save(step, state)
        checkpoints.wait()
        print(step, flush=True)
""")


def start_child(directory, *, fault="", last=1_000_000):
  here = pathlib.Path(__file__).parent
  return subprocess.Popen(
      [sys.executable, "-c", CHILD, directory, ROOT, here],
      env={**os.environ, "FAULT": fault, "LAST": str(last)},
      stdout=subprocess.PIPE,
      text=True,
  )


class KillTest(parameterized.TestCase):

  @parameterized.parameters(
      ("after_commit", 2),
      ("before_manifest", 2),
      ("after_manifest", 2),
      ("before_prune", 3),
      ("", 3),
  )
  def test_kill_leaves_the_last_complete_step(self, point, expected):
    directory = make_directory(self) / "ckpt"
    with start_child(directory, fault=point, last=3) as child:
      reported = [int(line) for line in child.stdout]
    self.assertEqual(child.returncode, -signal.SIGKILL if point else 0)
    self.assertEqual(reported, [1, 2] if point else [1, 2, 3])
    with checkpoint.Checkpoints(directory, max_to_keep=1) as checkpoints:
      state, step = checkpoints.restore(make_state(0))
      self.assertEqual(step, expected)
      self.assertTrue(equal(state, make_state(step)))
      # The run goes on, and what the kill left does not pile up.
      for later in (step + 1, step + 2):
        checkpoints.save(later, make_state(later))
      checkpoints.wait()
      self.assertEqual(names(directory), [str(step + 2)])

  @pytest.mark.slow
  def test_kill_at_random_moments_loses_nothing_reported(self):
    directory = make_directory(self) / "ckpt"
    rng = np.random.default_rng(0)
    reported = 0
    for _ in range(15):
      with start_child(directory) as child:
        lines = [child.stdout.readline()]
        time.sleep(rng.uniform(0.0, 0.2))
        child.kill()
        lines += child.stdout.readlines()
      steps = [int(line) for line in lines if line.endswith("\n")]
      self.assertEqual(steps[0], reported + 1)
      state, step = restore(directory)
      self.assertIn(step - steps[-1], (0, 1))  # A kill may precede the print.
      self.assertTrue(equal(state, make_state(step)))
      reported = step


class DiskFullTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.directory = make_directory(self) / "ckpt"
    # Beyond this size a write fails with EFBIG, much as on a full disk.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    self.addCleanup(signal.signal, signal.SIGXFSZ, signal.SIG_DFL)
    self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, self.limits)

  def fail_to_save(self, method):
    """Returns the error of a save under a limit; step 1 was complete."""
    checkpoints = checkpoint.Checkpoints(self.directory)
    checkpoints.save(1, make_state(1))
    checkpoints.wait()
    big = np.random.default_rng(0).normal(size=(512, 512))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, self.limits[1]))
    with self.assertRaises(errors.UserError) as caught:
      checkpoints.save(2, {"big": jax.device_put(big, replicated())})
      getattr(checkpoints, method)()
    checkpoints.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)
    return str(caught.exception)

  def test_wait_and_close_report_it(self):
    for method in ("wait", "close"):
      with self.subTest(method):
        shutil.rmtree(self.directory, ignore_errors=True)
        message = self.fail_to_save(method)
        self.assertIn(str(self.directory), message)
        self.assertRegex(
            message,
            r"step 2 could not be written.*File too large.*step 1 is intact",
        )
        self.assertNotIn("\n", message)
        self.assertEqual(names(self.directory), ["1"])

  def test_nothing_but_our_line_is_logged(self):
    code = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {[str(p) for p in (ROOT, ROOT / "tests/training")]}
        import test_checkpoint
        test = test_checkpoint.DiskFullTest("fail_to_save")
        test.setUp()
        print(test.fail_to_save("wait"))
    """)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    self.assertIn("step 2 could not be written", result.stdout)
    self.assertEqual(result.stderr, "")

  def test_training_goes_on_after_space_is_freed(self):
    self.fail_to_save("wait")
    with checkpoint.Checkpoints(self.directory) as checkpoints:
      state, step = checkpoints.restore(make_state(0))
      self.assertEqual(step, 1)
      self.assertTrue(equal(state, make_state(1)))
      checkpoints.save(2, make_state(2))
      checkpoints.wait()
      self.assertEqual(checkpoints.steps(), [1, 2])

  def test_directory_that_is_a_file(self):
    self.directory.write_text("")
    with self.assertRaisesRegex(errors.UserError, "ckpt: cannot be written"):
      checkpoint.Checkpoints(self.directory)


if __name__ == "__main__":
  absltest.main()
