"""Tests for ctxseg_jax.training.metrics."""

import contextlib
import io
import json
import pathlib
import resource
import signal
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tensorboardX.proto import event_pb2

from ctxseg_jax import errors
from ctxseg_jax.training import metrics


class MetricsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.file = self.path / "metrics.jsonl"
    self.now = 1000.0
    self.metrics = self.start(0)

  def start(self, step, evaluated=False):
    """Returns the metrics of a run that starts at a step."""
    started = metrics.Metrics(self.path, clock=lambda: self.now)
    self.addCleanup(started.close)
    started.start(step, evaluated)
    return started

  def rows(self):
    """Returns the rows of the file, without wall time."""
    rows = [json.loads(line) for line in self.file.read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k != "wall_seconds"} for row in rows
    ]

  def test_a_row_is_in_the_file_at_once_as_plain_json(self):
    figures = {
        "float32": (np.float32(0.5), "0.5"),
        "nan": (float("nan"), "null"),  # NaN is not JSON.
        "inf": (np.inf, "null"),
        "bfloat16": (jnp.bfloat16(0.5), "0.5"),
        "array": (np.array([[1, 2]]), "[[1, 2]]"),
        "nans": (jnp.array([jnp.nan, 1.0]), "[null, 1.0]"),
    }
    self.metrics.write(1, {name: value for name, (value, _) in figures.items()})
    written = "".join(f'"{name}": {x}, ' for name, (_, x) in figures.items())
    self.assertEqual(
        self.file.read_text(),
        f'{{"step": 1, {written}"wall_seconds": 0.0}}\n',
    )

  def test_resuming_leaves_no_duplicates(self):
    for step in (10, 20, 30):
      self.metrics.write(step, {"loss/total": 1.0})
    with open(self.file, "ab") as f:
      f.write('{"step": 40, "note": "é'.encode()[:-1])  # Cut by a kill.
    self.metrics = self.start(20)
    for step in (30, 40):
      self.metrics.write(step, {"loss/total": 2.0})
    self.assertEqual([r["step"] for r in self.rows()], [10, 20, 30, 40])
    self.assertLen(self.metrics.read(), 4)

  @parameterized.parameters("hello", "[1]", '{"a": 1}', '{"step": 2, "b": "c"}')
  def test_a_broken_line_before_the_last_is_an_error(self, line):
    self.file.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with self.assertRaisesRegex(errors.UserError, "metrics.jsonl: line 2"):
      self.metrics = self.start(2)

  def test_evaluations_have_rows_without_duplicates(self):
    self.metrics.write(20, {"loss/total": 1.0})
    scores = {"miou": 0.5, "pixel_accuracy": np.nan}
    self.metrics.write_evaluation(20, scores, {}, {})
    row = {"step": 20, "eval/miou": 0.5, "eval/pixel_accuracy": None}
    self.assertEqual(self.rows()[1:], [row])
    self.start(20, evaluated=True)
    self.assertEqual(self.rows()[1:], [row])
    # Stopped before the report was written: it is evaluated once more.
    again = self.start(20, evaluated=False)
    self.assertEqual(self.rows(), [{"step": 20, "loss/total": 1.0}])
    again.write_evaluation(20, scores, {}, {})
    self.assertEqual(self.rows()[1:], [row])

  def test_wall_time_goes_on_where_the_run_stopped(self):
    self.now += 7.0
    self.metrics.write(10, {})
    self.now += 3.0
    self.metrics.write(20, {})
    self.now += 1e6
    resumed = self.start(10)
    self.now += 2.0
    resumed.write(20, {})
    self.assertEqual([r["wall_seconds"] for r in resumed.read()], [7.0, 9.0])

  @parameterized.parameters(("write", "metrics.jsonl"), ("_add_event", "board"))
  def test_a_full_disk_is_one_line_that_names_the_file(self, method, name):
    with limited_to(len(self.file.read_bytes())):
      with self.assertRaisesRegex(errors.UserError, f"{name}.*too large"):
        for step in range(10_000):
          if method == "write":
            self.metrics.write(step, {})
          else:
            self.metrics._add_event(step)
      self.metrics.close()  # With what could not be written in its buffer.

  def test_tensorboard_gets_the_same_figures(self):
    self.metrics.write(10, {"loss/total": 0.5, "eta_seconds": float("nan")})
    picture = np.full((3, 4, 3), (90, 60, 200), np.uint8)
    classes = {"iou/a b": 0.5, "iou/none": np.nan}
    self.metrics.write_evaluation(
        10, {"miou": 0.25}, classes, {"confusion_matrix": picture}
    )
    self.metrics.close()
    self.start(10, evaluated=True)
    events = [
        event
        for path in sorted((self.path / "tensorboard").iterdir())
        for event in read_events(path)
    ]
    figures = [
        (event.step, value.tag, value.simple_value)
        for event in events
        for value in event.summary.value
        if not value.HasField("image")
    ]
    self.assertEqual(
        figures,
        [
            (10, "loss/total", 0.5),
            (10, "eval/miou", 0.25),
            (10, "iou/a b", 0.5),
        ],
    )
    [shown] = [
        value
        for event in events
        for value in event.summary.value
        if value.HasField("image")
    ]
    self.assertEqual(shown.tag, "confusion_matrix")
    self.assertEqual((shown.image.height, shown.image.width), (3, 4))
    data = io.BytesIO(shown.image.encoded_image_string)
    np.testing.assert_allclose(Image.open(data), picture, atol=3)
    starts = [e.step for e in events if e.HasField("session_log")]
    self.assertEqual(starts, [1, 11])  # From there on, the later one counts.


@contextlib.contextmanager
def limited_to(size):
  """Lets no file grow beyond a size: much as a full disk does."""
  old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, old)


def read_events(path):
  data = path.read_bytes()
  while data:
    size = int.from_bytes(data[:8], "little")
    yield event_pb2.Event.FromString(data[12 : 12 + size])
    data = data[16 + size :]


if __name__ == "__main__":
  absltest.main()
