"""What a user gets wrong is answered with one line and an exit code."""

import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import tiny

from configs import quickstart
from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import experiment

MISSPELT_CONFIG = """
from configs import quickstart


def get_config():
  config = quickstart.get_config()
  with config.unlocked():
    {line}
  return config
"""


class FolderCase(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.workdir = self.folder / "run"


class MemoryTest(parameterized.TestCase):

  @parameterized.parameters(
      (MemoryError("Unable to allocate 9 TiB"), "9 TiB"),
      (MemoryError(), "the system"),
      (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 TB\nstack"), "9 TB)"),
  )
  def test_too_little_memory_is_one_line(self, error, text):
    with mock.patch.object(commands, "fail", side_effect=SystemExit) as fail:
      with self.assertRaises(SystemExit), commands._guarded():
        raise error
    message, code = fail.call_args.args
    self.assertEqual(code, 2)
    self.assertIn(text, message)
    self.assertIn("lower --memory_gb", message)

  def test_other_errors_of_the_runtime_are_bugs(self):
    with self.assertRaises(jax.errors.JaxRuntimeError), commands._guarded():
      raise jax.errors.JaxRuntimeError("INTERNAL: no")


class CompilationCacheTest(FolderCase):

  def kept_in(self, **environment):
    """Returns where commands keep programs; None is where JAX says."""
    with mock.patch.dict(os.environ, environment, clear=True):
      commands.keep_compiled_programs()
      return os.environ.get("JAX_COMPILATION_CACHE_DIR")

  def test_is_in_the_cache_folder_of_the_user(self):
    folder = self.kept_in(XDG_CACHE_HOME=str(self.folder))
    self.assertStartsWith(folder, str(self.folder / "ctxseg_jax"))
    self.assertTrue(os.path.isdir(folder))
    home = self.kept_in(HOME=str(self.folder))
    self.assertStartsWith(home, str(self.folder / ".cache/ctxseg_jax"))

  def test_a_given_folder_stays(self):
    given = dict(JAX_COMPILATION_CACHE_DIR="there", HOME=str(self.folder))
    self.assertEqual(self.kept_in(**given), "there")

  def test_without_a_folder_to_write_to_there_is_none(self):
    file = self.folder / "file"
    file.touch()
    self.assertIsNone(self.kept_in(XDG_CACHE_HOME=str(file)))


class MemorySetupTest(parameterized.TestCase):

  @parameterized.parameters(
      (
          {},
          "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
          ":glibc.malloc.mmap_threshold=1073741824"
          ":glibc.malloc.trim_threshold=2147483648",
      ),
      ({"GLIBC_TUNABLES": ""}, ""),
      ({"GLIBC_TUNABLES": "a.b=1"}, "a.b=1"),
  )
  def test_is_set_up_unless_glibc_was_told_otherwise(self, given, expected):
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    code = (
        "from ctxseg_jax import commands; commands.set_up_memory();"
        "import os, sys; print(sys.argv[1:], os.environ['GLIBC_TUNABLES'])"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", code, "--a=b c", "*"],
        env=environment | given,
        text=True,
    )
    self.assertEqual(output.strip(), f"['--a=b c', '*'] {expected}".strip())


class CommandTest(FolderCase):
  """The commands themselves, in processes of their own."""

  def assert_refused(self, result, *texts):
    """Exactly one line of error, which says all of `texts`."""
    output = result.stdout + result.stderr
    self.assertEqual(result.code, 2, output)
    self.assertNotIn("Traceback", output)
    self.assertLen(result.errors, 1, output)
    for text in texts:
      self.assertIn(text, result.errors[0])

  @parameterized.parameters(
      (["--config.optim.learnig_rate=0.1"], ["learnig_rate", "learning_rate"]),
      (["--workdri=x"], ["workdri", "workdir"]),
      (["--config=configs/quickstart.py:fnc"], ["fnc", "fcn", "smoke"]),
      (["--config=configs/quikstart.py"], ["configs/quikstart.py"]),
      (["stray"], ["stray"]),
      (["--num_processes=2", "--process_id=1"], ["--distributed"]),
      (["--distributed"], ["--coordinator_address"]),
  )
  def test_bad_flags_of_training_are_one_line(self, flags, texts):
    result = tiny.run(
        "train.py",
        "--config=configs/quickstart.py",
        f"--workdir={self.workdir}",
        *flags,
    )
    self.assert_refused(result, *texts)
    self.assertFalse(self.workdir.exists())

  @parameterized.parameters(
      (
          MISSPELT_CONFIG.format(line="config.optim.learnig_rate = 0.1"),
          ["'optim.learnig_rate', did you mean 'optim.learning_rate'"],
      ),
      ("def get_config():\n  return 3 +\n", ["mine.py", "line 2"]),
  )
  def test_mistakes_inside_a_config_are_one_line(self, text, expected):
    path = self.folder / "mine.py"
    path.write_text(text)
    result = tiny.train(self.workdir, config=str(path))
    self.assert_refused(result, *expected)

  def test_a_batch_that_does_not_divide_over_the_devices(self):
    result = tiny.train(self.workdir, devices=3)
    self.assert_refused(result, "batch_size", "8", "3 devices")

  def test_missing_flags_and_paths_are_named(self):
    result = tiny.run("train.py", "--config=configs/quickstart.py")
    self.assert_refused(result, "workdir")
    workdir, nowhere = f"--workdir={self.folder}", f"{self.folder}/nowhere"
    result = tiny.run("eval.py", workdir)
    self.assert_refused(result, "config.json", str(self.folder))
    result = tiny.run(
        "predict.py", workdir, f"--images={nowhere}", f"--output={self.folder}"
    )
    self.assert_refused(result, "--images", nowhere)

  def test_a_bad_flag_of_evaluation_is_one_line(self):
    workdir = f"--workdir={tiny.finished_run()}"
    result = tiny.run("eval.py", workdir, "--split=tset")
    self.assert_refused(result, "tset", "train, val")

  @parameterized.parameters("train.py", "eval.py", "predict.py")
  def test_help_lists_the_flags(self, script):
    result = tiny.run(script, "--help")
    output = result.stdout + result.stderr
    self.assertIn(result.code, (0, 1))
    self.assertNotIn("Traceback", output)
    self.assertIn("--workdir", output)


class XlaFlagTest(parameterized.TestCase):

  @parameterized.parameters(
      ("0.10.2", "--other=1", "--other=1 --flag=2"),
      ("0.10.2", "--flag=3", "--flag=3"),
      ("99.0", "", ""),
  )
  def test_is_added_where_it_is_known_and_not_given(
      self, jaxlib, given, expected
  ):
    with (
        mock.patch.object(commands.metadata, "version", lambda name: jaxlib),
        mock.patch.dict(os.environ, XLA_FLAGS=given),
    ):
      commands.add_xla_flag("--flag=2")
      self.assertEqual(os.environ["XLA_FLAGS"], expected)


class ConfigFileTest(FolderCase):

  @parameterized.parameters(
      ("def get_config():\n  return {}['x']\n", "^line 2: KeyError: 'x'$"),
      ("import absent\n", "^line 1: ModuleNotFoundError: .*'absent'$"),
      ("def get_config(:\n", r"^SyntaxError: .*\(mine.py, line 1\)$"),
      ("def get_config():\n  return 1 + 'x'\n", "^line 2: TypeError: .*'str'$"),
      ("def get_config():\n  raise ValueError('a or b')\n", "^a or b$"),
  )
  def test_a_mistake_in_it_is_told_with_its_line(self, text, message):
    path = self.folder / "mine.py"
    path.write_text(text)
    parser = commands._ConfigParser("config", lock_config=False)
    with self.assertRaises(ValueError) as refused:
      parser.parse(str(path))
    self.assertRegex(str(refused.exception), message)


class ConfigTest(FolderCase):
  """What the loop refuses before the first step."""

  @parameterized.named_parameters(
      ("head", {"model.head.name": "encent"}, "'encent', did you.* 'encnet'"),
      ("backbone", {"model.backbone.name": "vgh"}, "backbone.name.*'vgh'"),
      ("dataset", {"data.name": "camvit"}, "data.name.*did you mean 'camvid'"),
      ("loss", {"loss.ce.loss": "hinge"}, "loss.ce.loss.*'hinge'"),
      ("schedule", {"optim.schedule.name": "step"}, "schedule.name.*'step'"),
      ("mask", {"optim.weight_decay_mask": "none"}, "decay_mask.*'none'"),
      ("dtype", {"model.dtype": "float8"}, "model.dtype.*'float8'"),
      (
          "type_of_a_field",
          {"model.head.channels": "fifty"},
          "model.head.channels: expected an integer.*, got 'fifty'",
      ),
      ("key_of_a_head", {"model.head.chanels": 8}, "did you mean '.*channels'"),
      ("key_of_a_loss", {"loss.ce.wieght": 1.0}, "loss.ce.wieght"),
      ("steps", {"total_steps": 0}, "total_steps: expected an int.*1, got 0"),
      ("memory", {"batch_size": 8 * 10**8}, "batch_size 800000000.* GB"),
      ("std", {"data.std": (1.0, 0.0, 1.0)}, "data.std"),
      ("crop", {"data.crop_size": (128,)}, "data.*crop_size"),
      ("seed", {"seed": -1}, "seed.*-1"),
      ("workers", {"data.num_workers": -1}, "num_workers.*-1"),
      ("split", {"data.eval_split": "tset"}, "'tset'.*train, val"),
      ("protocol", {"eval.protocol": "voc"}, "eval.protocol.*'voc'.*mmseg"),
      ("mode", {"eval.mode": "tiles"}, "eval.*'tiles'"),
  )
  def test_mistakes_in_the_config_are_named(self, changes, message):
    self.assert_refused(changes, message)

  def assert_refused(self, changes, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      experiment.train_and_evaluate(self.config(changes), str(self.workdir))
    self.assertNotIn("\n", str(caught.exception))
    self.assertEqual(caught.exception.exit_code, 2)

  def test_a_mistake_that_stopped_a_run_can_be_mended_in_place(self):
    # Found when the step is compiled, so the work dir is there already.
    self.assert_refused(
        {"loss.depth_logits": {"loss": "softmax_cross_entropy"}},
        "loss.depth_logits: the model has no output 'depth_logits'; it has",
    )
    self.assert_refused(
        {"optim.lr_multipliers": {"haed": 10.0}},
        "lr_multipliers: no part 'haed' in the model; it has backbone, head",
    )

  def test_a_data_set_that_is_not_there_names_the_command(self):
    self.assert_refused(
        {"data.name": "camvid", "data.data_dir": str(self.folder)},
        "ctxseg_jax.data.prepare --dataset camvid --source DIR --data_dir"
        f" {self.folder}",
    )

  def test_a_work_dir_that_is_a_file(self):
    self.workdir.write_text("")
    self.assert_refused({}, f"{self.workdir}.* a file")

  def test_a_checkpoint_that_is_not_kept_is_told_which_are(self):
    with self.assertRaisesRegex(errors.UserError, r"no step 5.*\[8, 12\]"):
      experiment.load(tiny.finished_run(), "5")
    with self.assertRaisesRegex(errors.UserError, "--checkpoint.*'newest'"):
      experiment.load(tiny.finished_run(), "newest")

  def config(self, changes):
    """Returns the tiny config with dotted keys set."""
    config = quickstart.get_config()
    with config.unlocked():
      config.batch_size = 8 * jax.device_count()
      config.model.backbone.channels = 8
      config.model.head.channels = 8
      config.data.data_dir = tiny.data_dir()
      for key, value in changes.items():
        *sections, name = key.split(".")
        node = config
        for section in sections:
          node = node[section]
        # As a config file would: types may change.
        if name in node:
          del node[name]
        node[name] = value
    return config


if __name__ == "__main__":
  absltest.main()
