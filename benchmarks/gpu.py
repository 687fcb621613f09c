r"""All that is worth measuring on a GPU, in ten minutes, the best first.

  python -m benchmarks.gpu --output gpu.jsonl
  python -m benchmarks.gpu --train --data_dir data --output gpu_train.jsonl

The first command times training steps in bfloat16 at 512x512 beside PyTorch and
stops when `--minutes` are over. Each measurement is a command of its own
(`benchmarks.train_step`), so that one that fails or hangs takes no other along,
and its result is a line of the output as soon as it exists. No network access
is needed; PyTorch is looked for in the Python that runs this, unless
`--peer_python` says otherwise. Where it has no mmsegmentation, the peers are
torchvision's FCN and DeepLabV3, and EncNet in plain PyTorch.

With `--train` it trains the configs of CamVid that are sized for a GPU to their
end instead, scores them on the test split, and reports; the same command again
goes on where it stopped.

`--dry` does either with tiny networks, images and runs: a rehearsal that any
machine can do.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import results
from benchmarks import timing
from ctxseg_jax import commands
from ctxseg_jax import errors

# In the order of their worth: network, images, PyTorch's modes, and what else
# our side is told. Each runs in a process; compiled programs are kept.
STEPS = (
    ("encnet_r101", 16, ("channels_last",), {}),
    ("deeplabv3_r101", 16, ("channels_last",), {}),
    ("encnet_r101", 16, ("channels_last",), dict(remat="conv", num_chunks=64)),
    ("encnet_r101", 16, ("compile",), {}),
    ("deeplabv3_r101", 16, ("compile",), {}),
    ("fcn_r50", 16, ("channels_last",), {}),
    ("encnet_r50", 16, ("channels_last",), {}),
    ("encnet_r101", 16, ("channels_last",), dict(num_chunks=64)),
    ("encnet_r101", 8, ("channels_last",), {}),
    ("encnet_r101", 32, ("channels_last",), {}),
    ("deeplabv3_r50", 16, ("channels_last",), {}),
    ("encnet_r101", 16, ("eager",), {}),
    ("deeplabv3plus_lite0", 8, ("channels_last",), {}),
    ("pspnet_r50", 16, ("channels_last",), {}),
)

CONFIGS = ("configs/camvid/encnet.py:r50", "configs/camvid/encnet.py:r50,fcn")

# Dense bfloat16 operations per second, from NVIDIA's data sheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}

# Less is not worth a start.
_LEAST_SECONDS = 20


def environment() -> dict[str, str]:
  """Returns the environment of measurements.

  Both sides share a GPU: ours takes memory as it needs it. Without a folder for
  compiled programs of the user's, they are kept as those of all commands.
  """
  return os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def steps(peer_python: str, minutes: float, dry: bool) -> Iterator[dict]:
  """Yields the result of each training step, until the time is over."""
  end = time.monotonic() + 60 * minutes
  size, dtype, rounds, chosen = 512, "bfloat16", 3, STEPS
  if dry:
    size, dtype, rounds = 64, "float32", 1
    chosen = [(x[0].replace("r101", "r50"), 2, *x[2:]) for x in STEPS]
    chosen = [x for i, x in enumerate(chosen) if x not in chosen[:i]]
  for network, batch, modes, options in chosen:
    about = dict(network=network, batch=batch, modes=modes, **options)
    left = end - time.monotonic()
    if left < _LEAST_SECONDS:
      yield about | {"error": "the time was over before it began"}
      continue
    with tempfile.TemporaryDirectory() as folder:
      output = pathlib.Path(folder, "row.json")
      arguments = dict(
          networks=network,
          sizes=size,
          batch=batch,
          dtype=dtype,
          modes=",".join(modes),
          rounds=rounds,
          block_seconds=0.1 if dry else 2.0,
          peer_python=peer_python,
          output=output,
          **options,
      )
      command = [sys.executable, "-m", "benchmarks.train_step"]
      command += [f"--{key}={value}" for key, value in arguments.items()]
      failure = _run(command, left)
      if failure:
        yield about | {"error": failure}
        continue
      found = json.loads(output.read_text())
    (row,) = found["rows"]
    yield row | {"machine": found["machine"]} | utilisation(row, found)


def utilisation(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict:
  """Returns the share of the GPU's peak; nothing if that is not known.

  Of multiply-accumulates of the forward pass, three times, for backward too.
  """
  names = [x for x in PEAKS if x in found["machine"]["device"]]
  if not names or "seconds" not in row:
    return {}
  operations = 6 * row["macs"] * row["batch"]
  seconds = statistics.median(row["seconds"]["ours"])
  return {"share_of_peak": operations / seconds / PEAKS[names[0]]}


def train(data_dir: str, workdir: str, dry: bool) -> Iterator[dict]:
  """Yields what each config came to; a run that was stopped goes on."""
  for config in CONFIGS:
    name = config.rpartition(":")[2].replace(",", "_")
    if dry:
      config += ",smoke"
    folder = pathlib.Path(workdir, name)
    about = {"config": config, "workdir": str(folder)}
    start = time.monotonic()
    failure = _run(
        [
            *(sys.executable, "train.py", f"--config={config}"),
            f"--config.data.data_dir={data_dir}",
            f"--workdir={folder}",
        ]
    )
    about["train_seconds"] = time.monotonic() - start
    if failure:
      yield about | {"error": failure}
      continue
    failure = _run(
        [
            *(sys.executable, "eval.py", f"--workdir={folder}", "--split=test"),
        ]
    )
    if failure:
      yield about | {"error": failure}
      continue
    reports = [
        json.loads(path.read_text())
        for path in sorted((folder / "eval").glob("*.json"))
    ]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    last = [x for x in map(json.loads, lines) if "images_per_second" in x][-1:]
    about["test"] = [
        {key: x[key] for key in ("step", "miou", "pixel_accuracy")}
        for x in reports
        if x["split"] == "test"
    ]
    yield about | {"last": last}


def _run(command: list[str], seconds: float | None = None) -> str:
  """Runs a command; returns why it failed, or nothing."""
  try:
    done = subprocess.run(
        command,
        env=environment(),
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
  except subprocess.TimeoutExpired:
    return "the time was over before it ended"
  if not done.returncode:
    return ""
  lines = [x for x in done.stderr.splitlines() if x.strip()]
  said = [x for x in lines if x.startswith("error: ")] or lines
  return f"code {done.returncode}: {said[-1] if said else ''}"[:500]


def to_table(rows: list[Mapping[str, Any]]) -> str:
  """Returns the table of training steps that is printed at the end."""
  lines = []
  for row in rows:
    options = [f"{row[k]}" for k in ("remat",) if row.get(k, "none") != "none"]
    if row.get("num_chunks", 1) > 1:
      options.append(f"{row['num_chunks']} chunks")
    cells = [row.get("error", ""), "", ""]
    if "error" not in row:
      cells = timing.cells(row)
    gib = f"{(row.get('peak_bytes') or 0) / 2**30:.1f}"
    share = f"{100 * row.get('share_of_peak', 0.0):.0f}"
    name = ", ".join([row["network"], str(row["batch"]), *options])
    lines.append([name, *cells, gib, share])
  header = ["network, images", *timing.HEADER, "ours, GiB", "% of peak"]
  return results.table(header, lines)


def main(argv):
  del argv
  given = flags.FLAGS
  output = pathlib.Path(given.output)
  output.parent.mkdir(parents=True, exist_ok=True)
  if given.train and not given.data_dir:
    raise errors.UserError(
        "--data_dir: missing; name the folder of ctxseg_jax.data.prepare, which"
        " has CamVid"
    )
  if given.train:
    measured = train(given.data_dir, given.workdir, given.dry)
  else:
    python = given.peer_python or sys.executable
    measured = steps(python, given.minutes, given.dry)
  rows = []
  with output.open("a") as file:
    for row in measured:
      rows.append(row)
      # At once: the machine may be taken away at any time.
      file.write(json.dumps(row) + "\n")
      file.flush()
      os.fsync(file.fileno())
      print(json.dumps(row), flush=True)
  if not given.train:
    print(to_table(rows))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_string("output", None, "File to add lines of JSON to.")
  flags.DEFINE_string("peer_python", None, "A Python that has PyTorch.")
  flags.DEFINE_float("minutes", 9.5, "After which nothing is begun.")
  flags.DEFINE_bool("train", False, "Train the configs of CamVid instead.")
  flags.DEFINE_string("data_dir", None, "Prepared data, for --train.")
  flags.DEFINE_string("workdir", "runs/gpu", "Folder of runs, for --train.")
  flags.DEFINE_bool("dry", False, "Tiny: a rehearsal on any machine.")
  flags.mark_flags_as_required(["output"])
  commands.run(main)
