"""Trains and predicts with a network in PyTorch, a few steps when asked.

  python -m benchmarks.peers.server

Requests come and answers go as lines of JSON; whatever else is printed goes to
standard error. `benchmarks.peer` starts it and talks to it.
"""

import importlib
from importlib import metadata
import os
import resource
import time

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.peers import answering

IGNORED = 255

# Where networks are built, the first one at hand that has the network.
SOURCES = {
    "mmsegmentation": "benchmarks.peers.mmsegmentation",
    "torchvision": "benchmarks.peers.torchvision_models",
    "plain": "benchmarks.peers.plain",
}


def find_networks() -> dict[str, dict]:
  """Returns the tables of networks by source, of the sources at hand."""
  found = {}
  for name, module in SOURCES.items():
    try:
      found[name] = importlib.import_module(module).NETWORKS
    except ImportError:
      pass  # The library is not installed.
  return found


def total_loss(outputs, labels, weights):
  """Sums cross-entropy of upsampled logits, and which classes there are."""
  total = 0.0
  for name, weight in weights.items():
    x = outputs[name].float()
    if x.ndim == 4:
      x = F.interpolate(
          x, labels.shape[1:], mode="bilinear", align_corners=False
      )
      loss = F.cross_entropy(x, labels, ignore_index=IGNORED)
    else:
      classes = x.shape[1]
      there = x.new_zeros(len(x), classes + 1)
      known = labels.masked_fill(labels == IGNORED, classes).flatten(1)
      there = there.scatter_(1, known, 1.0)[:, :classes]
      loss = F.binary_cross_entropy_with_logits(x, there)
    total = total + weight * loss
  return total


def _starts(length, window, stride):
  """Returns where windows start, the last one at the end of the image."""
  count = max(0, -(-(length - window) // stride)) + 1
  return [min(i * stride, length - window) for i in range(count)]


class Peer:
  """A network with its optimiser and a batch.

  Modes: "eager"; "channels_last", with that layout in memory; with
  `torch.compile` of network and loss also "compile", of the network alone
  "compile_network".
  """

  def __init__(
      self,
      *,
      source,
      network,
      num_classes,
      batch,
      weights,
      mode,
      bfloat16,
      terms,
      mean,
      std,
      optimizer,
      train=True,
  ):
    torch.manual_seed(0)
    self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    self.bfloat16, self.terms = bfloat16, terms
    self.network = find_networks()[source][network](num_classes)
    # The library's own module: its names are those that others know.
    inner = getattr(self.network, "segmentor", self.network)
    inner = getattr(inner, "model", inner)
    is_first = not os.path.exists(weights)
    if not is_first:
      inner.load_state_dict(torch.load(weights, weights_only=True))
    self.parameters = sum(x.numel() for x in inner.parameters())
    self.network.to(self.device).train(train)
    layout = torch.contiguous_format
    if mode != "eager":
      layout = torch.channels_last
      self.network.to(memory_format=layout)
    self.layout = layout
    arrays = np.load(batch)
    self.images = torch.from_numpy(arrays["image"]).to(self.device)
    self.labels = torch.from_numpy(arrays["label"]).to(self.device).long()
    self.mean, self.std = (
        torch.tensor(x, device=self.device)[:, None, None] for x in (mean, std)
    )
    self.optimizer = torch.optim.SGD(self.network.parameters(), **optimizer)
    if is_first:
      if not train:
        self._take_statistics()
      state = {name: x.cpu() for name, x in inner.state_dict().items()}
      torch.save(state, weights)
    self.outputs, self.loss = self._outputs, self._loss
    if mode == "compile":
      self.loss = torch.compile(self._loss)
    if mode == "compile_network" or (mode == "compile" and not train):
      self.outputs = torch.compile(self._outputs)

  @torch.no_grad()
  def _take_statistics(self):
    """Gives batch norms the statistics of the batch.

    With mean 0 and variance 1 a network with random weights may predict one
    class everywhere.
    """
    for module in self.network.modules():
      if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        module.momentum = 1.0
    self.network.train()
    self._outputs(self.images)
    self.network.eval()

  def _outputs(self, images):
    x = images.permute(0, 3, 1, 2).to(memory_format=self.layout)
    x = (x.float() - self.mean) / self.std
    with torch.autocast(
        self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16
    ):
      return self.network(x)

  def _loss(self, images, labels):
    return total_loss(self.outputs(images), labels, self.terms)

  def _scores(self, images):
    x = self.outputs(images)["logits"].float()
    size = images.shape[1:3]
    return F.interpolate(x, size, mode="bilinear", align_corners=False)

  def _scores_of_windows(self, images, window, stride):
    height, width = images.shape[1:3]
    total, count = 0.0, images.new_zeros(height, width, dtype=torch.float32)
    for y in _starts(height, window, stride):
      for x in _starts(width, window, stride):
        rows, cols = slice(y, y + window), slice(x, x + window)
        scores = self._scores(images[:, rows, cols])
        if count.max() == 0:
          total = scores.new_zeros(*scores.shape[:2], height, width)
        total[..., rows, cols] += scores
        count[rows, cols] += 1
    return total / count

  def train(self, steps):
    """Returns the seconds that so many steps took.

    Of the last one there are the loss and the norm of its gradient.
    """
    self._wait()
    start = time.perf_counter()
    for _ in range(steps):
      self.optimizer.zero_grad(set_to_none=True)
      loss = self.loss(self.images, self.labels)
      loss.backward()
      self.optimizer.step()
    self._wait()
    seconds = time.perf_counter() - start
    norms = [x.grad.norm() for x in self.network.parameters()]
    return {
        "seconds": seconds,
        "loss": float(loss.detach()),
        "grad_norm": float(torch.stack(norms).norm()),
    }

  def predict(self, steps, images, window=None, stride=None, classes=False):
    """Returns the seconds that so many predictions of some images took.

    They end with the classes on the host, which are returned if asked for.
    """
    batch = self.images[:images]
    with torch.inference_mode():
      self._wait()
      start = time.perf_counter()
      for _ in range(steps):
        if window is None:
          scores = self._scores(batch)
        else:
          scores = self._scores_of_windows(batch, window, stride)
        found = scores.argmax(1).to(torch.uint8).cpu()
      seconds = time.perf_counter() - start
    answer = {"seconds": seconds}
    return answer | ({"classes": found.tolist()} if classes else {})

  def peak_bytes(self):
    """Returns the most memory so far: of the GPU, or of the process."""
    if self.device.type == "cuda":
      return {"bytes": torch.cuda.max_memory_allocated()}
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"bytes": kib * 1024}

  def _wait(self):
    if self.device.type == "cuda":
      torch.cuda.synchronize()


def describe():
  """Returns what there is: networks by source, versions, the device."""
  versions = {}
  for name in ("torch", "torchvision", "mmsegmentation"):
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      pass
  cuda = torch.cuda.is_available()
  return {
      "networks": {k: sorted(table) for k, table in find_networks().items()},
      "versions": versions,
      "threads": torch.get_num_threads(),
      "device": torch.cuda.get_device_name() if cuda else "cpu",
  }


def main():
  peer = None

  def answer(do, **request):
    nonlocal peer
    if do == "describe":
      return describe()
    try:
      if do == "build":
        peer = Peer(**request)
        return {"parameters": peer.parameters}
      return getattr(peer, do)(**request)
    except RuntimeError as e:  # Too little memory, or no compiler.
      return {"error": f"{type(e).__name__}: {e}".strip()[:400]}

  answering.answer_requests(answer)


if __name__ == "__main__":
  main()
