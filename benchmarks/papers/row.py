"""What a row of a paper's table is."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
  """A network of a table, or a point or curve of a figure.

  Attributes:
    label: What the paper calls it.
    published: The paper's figures, with their units: "51.9 mIoU, 79.3 pixel
      accuracy".
    config: What trains it, below `configs/`, with its variants:
      "pcontext/sanet.py:r101,fcn".
    evaluate: Flags of `eval.py` that give the published figure, if any.
    ours: What we reached, with the number of seeds and the hardware.
  """

  label: str
  published: str
  config: str
  evaluate: str = ""
  ours: str = "not trained yet"


@dataclasses.dataclass(frozen=True)
class Table:
  """A table or a figure.

  Attributes:
    name: As the paper numbers it, "Table 3" or "Figure 4".
    title: What it shows, in a few words.
    rows: Its rows, those of networks that are not part of this library left
      out.
    note: What a reader has to know: what is left out, and which reading of the
      paper the rows follow.
  """

  name: str
  title: str
  rows: tuple[Row, ...]
  note: str = ""
