"""How peers answer: a line of JSON for each on standard input."""

from collections.abc import Callable
import json
import os
import sys


def answer_requests(answer: Callable[..., dict]) -> None:
  """Answers requests by a function of their entries until the input ends."""
  # Libraries print; answers have the stream to themselves.
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)
  for line in sys.stdin:
    answers.write(json.dumps(answer(**json.loads(line))) + "\n")
