"""What a user gets wrong is answered with one line and an exit code."""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from PIL import Image
import tiny

from configs import quickstart
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data import images
from ctxseg_jax.evaluation import predictions

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
    directory = tempfile.TemporaryDirectory()
    self.addCleanup(directory.cleanup)
    self.folder = pathlib.Path(directory.name)
    self.workdir = self.folder / "run"


class CommandTest(FolderCase):
  """The commands themselves, in processes of their own."""

  def assert_refused(self, result, *texts, code=2):
    """Exactly one line of error, which says all of `texts`."""
    output = result.stdout + result.stderr
    self.assertEqual(result.code, code, output)
    self.assertNotIn("Traceback", output)
    self.assertLen(result.errors, 1, output)
    for text in texts:
      self.assertIn(text, result.errors[0])

  @parameterized.named_parameters(
      (
          "misspelt_key",
          ["--config.optim.learnig_rate=0.1"],
          ["learnig_rate", "learning_rate"],
      ),
      ("misspelt_flag", ["--workdri=x"], ["workdri", "workdir"]),
      ("wrong_type", ["--config.batch_size=abc"], ["batch_size", "abc"]),
      (
          "unknown_variant",
          ["--config=configs/quickstart.py:fnc"],
          ["fnc", "fcn", "smoke"],
      ),
      (
          "missing_config_file",
          ["--config=configs/quikstart.py"],
          ["configs/quikstart.py"],
      ),
      ("stray_argument", ["stray"], ["stray"]),
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

  def test_missing_workdir_is_named(self):
    result = tiny.run("train.py", "--config=configs/quickstart.py")
    self.assert_refused(result, "workdir")

  @parameterized.named_parameters(
      (
          "key_of_a_section",
          "config.optim.learnig_rate = 0.1",
          ["'optim.learnig_rate'", "'optim.learning_rate'"],
      ),
      (
          "key_at_the_top",
          "config.totl_steps = 3",
          ["'totl_steps'", "'total_steps'"],
      ),
  )
  def test_misspelt_keys_inside_a_config_are_one_line(self, line, texts):
    path = self.folder / "mine.py"
    path.write_text(MISSPELT_CONFIG.format(line=line))
    result = tiny.train(self.workdir, config=str(path))
    self.assert_refused(result, *texts, "did you mean")

  def test_a_config_that_does_not_parse_is_one_line(self):
    path = self.folder / "mine.py"
    path.write_text("def get_config():\n  return 3 +\n")
    result = tiny.train(self.workdir, config=str(path))
    self.assert_refused(result, "mine.py", "line 2")

  def test_a_batch_that_does_not_divide_over_the_devices(self):
    result = tiny.train(self.workdir, devices=3)
    self.assert_refused(result, "batch_size", "8", "3 devices")

  def test_flags_of_several_processes_need_distributed(self):
    result = tiny.train(self.workdir, "--num_processes=2", "--process_id=1")
    self.assert_refused(result, "--distributed")

  def test_distributed_without_a_cluster_says_what_to_pass(self):
    result = tiny.train(self.workdir, "--distributed")
    self.assert_refused(result, "--coordinator_address")

  def test_evaluation_needs_a_work_dir(self):
    result = tiny.run("eval.py", f"--workdir={self.folder}")
    self.assert_refused(result, "config.json", str(self.folder))

  def test_prediction_names_a_missing_path(self):
    result = tiny.run(
        "predict.py",
        f"--workdir={self.folder}",
        f"--images={self.folder}/nowhere",
        f"--output={self.folder}/out",
    )
    self.assert_refused(result, "--images", f"{self.folder}/nowhere")

  @parameterized.parameters("train.py", "eval.py", "predict.py")
  def test_help_lists_the_flags(self, script):
    result = tiny.run(script, "--help")
    output = result.stdout + result.stderr
    self.assertIn(result.code, (0, 1))
    self.assertNotIn("Traceback", output)
    self.assertIn("--workdir", output)


class EvaluationFlagsTest(FolderCase):
  """Flags of eval.py and predict.py, on a run that was trained."""

  @parameterized.named_parameters(
      ("split", ["--split=tset"], ["tset", "train, val"]),
      ("protocol", ["--protocol=voc"], ["--protocol", "voc", "mmseg"]),
      ("scales", ["--scales=0.5,big"], ["--scales", "0.5,big"]),
      ("mode", ["--mode=tiles"], ["mode", "tiles", "slide"]),
  )
  def test_bad_flags_of_evaluation_are_one_line(self, flags, texts):
    result = tiny.run("eval.py", f"--workdir={tiny.finished_run()}", *flags)
    output = result.stdout + result.stderr
    self.assertEqual(result.code, 2, output)
    self.assertNotIn("Traceback", output)
    self.assertLen(result.errors, 1, output)
    for text in texts:
      self.assertIn(text, result.errors[0])


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
      (
          "type_of_a_depth",
          {"model.backbone": {"name": "resnet", "depth": "fifty"}},
          "model.backbone.*depth.*fifty",
      ),
      ("key_of_a_head", {"model.head.chanels": 8}, "did you mean '.*channels'"),
      ("key_of_a_loss", {"loss.ce.wieght": 1.0}, "loss.ce.wieght"),
      ("steps", {"total_steps": 0}, "total_steps: expected an int.*1, got 0"),
      ("memory", {"batch_size": 8 * 10**8}, "batch_size 800000000.* GB"),
      ("std", {"data.std": (1.0, 0.0, 1.0)}, "data.std"),
      (
          "crop",
          {"data.crop_size": (128,)},
          "data.*crop_size",
      ),
      ("rate", {"optim.learning_rate": "fast"}, "optim.learning_rate.*'fast'"),
      ("momentum", {"optim.momentum": "high"}, "optim.momentum.*'high'"),
      ("weight", {"loss.ce.weight": "big"}, "loss.ce.weight.*'big'"),
      ("seed", {"seed": -1}, "seed.*-1"),
      ("workers", {"data.num_workers": -1}, "num_workers.*-1"),
      ("split", {"data.eval_split": "tset"}, "'tset'.*train, val"),
      ("protocol", {"eval.protocol": "voc"}, "eval.protocol.*'voc'.*mmseg"),
      ("mode", {"eval.mode": "tiles"}, "eval.*'tiles'"),
      (
          "output",
          {"loss.depth_logits": {"loss": "softmax_cross_entropy"}},
          "loss.depth_logits: the model has no output 'depth_logits'; it has",
      ),
      (
          "part",
          {"optim.lr_multipliers": {"haed": 10.0}},
          "lr_multipliers: no part 'haed' in the model; it has backbone, head",
      ),
  )
  def test_mistakes_in_the_config_are_named(self, changes, message):
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      experiment.train_and_evaluate(self.config(changes), str(self.workdir))
    self.assertNotIn("\n", str(caught.exception))
    self.assertEqual(caught.exception.exit_code, 2)

  def test_a_mistake_that_stopped_a_run_can_be_mended_in_place(self):
    # Found when the step is compiled, so the work dir is there already.
    mistake = {"loss.depth_logits": {"loss": "softmax_cross_entropy"}}
    with self.assertRaisesRegex(errors.UserError, "loss.depth_logits"):
      experiment.train_and_evaluate(self.config(mistake), str(self.workdir))
    other = {"optim.lr_multipliers": {"haed": 10.0}}
    with self.assertRaisesRegex(errors.UserError, "no part 'haed'"):
      experiment.train_and_evaluate(self.config(other), str(self.workdir))

  def test_a_data_set_that_is_not_there_names_the_command(self):
    changes = {"data.name": "camvid", "data.data_dir": str(self.folder)}
    with self.assertRaisesRegex(
        errors.UserError,
        "ctxseg_jax.data.prepare --dataset camvid --source DIR --data_dir"
        f" {self.folder}",
    ):
      experiment.train_and_evaluate(self.config(changes), str(self.workdir))

  def test_a_work_dir_that_is_a_file(self):
    self.workdir.write_text("")
    with self.assertRaisesRegex(errors.UserError, f"{self.workdir}.* a file"):
      experiment.train_and_evaluate(self.config({}), str(self.workdir))

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


class ImagesTest(FolderCase):
  """Files that are not the images their names promise."""

  def test_a_truncated_jpeg_is_named(self):
    path = self.folder / "cut.jpg"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    self.assert_refused(path)

  def test_text_under_the_name_of_an_image_is_named(self):
    path = self.folder / "note.png"
    path.write_text("not an image")
    self.assert_refused(path)

  def assert_refused(self, path):
    with self.assertRaisesRegex(errors.UserError, str(path)) as caught:
      data = path.read_bytes()
      images.image_size(data, str(path))
      images.decode_image(data, str(path))
    self.assertNotIn("\n", str(caught.exception))

  def test_lists_and_folders_name_what_is_missing(self):
    with self.assertRaisesRegex(errors.UserError, f"files in {self.folder}"):
      predictions.list_images(str(self.folder))
    listed = self.folder / "list.txt"
    listed.write_text("a.png\n")
    with self.assertRaisesRegex(errors.UserError, "list.txt, line 1.*a.png"):
      predictions.list_images(str(listed))
    listed.write_text("\n")
    with self.assertRaisesRegex(errors.UserError, "list.txt is empty"):
      predictions.list_images(str(listed))


if __name__ == "__main__":
  absltest.main()
