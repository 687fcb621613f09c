"""What a paper's tables are made of."""

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


@dataclasses.dataclass(frozen=True)
class Reading:
  """A place where a paper leaves something open, or its code differs from it.

  Attributes:
    system: The head, or the part of it: "SANet, convolutions of a path".
    text: What the paper says or leaves open, and the reading that is built.
    option: The option that chooses another: "`model.head.groups=1`"; empty if
      there is none.
  """

  system: str
  text: str
  option: str = ""


@dataclasses.dataclass(frozen=True)
class Paper:
  """A paper: `PAPER` of each of its modules in this package.

  Attributes:
    name: What its network is called: "SANet".
    citation: Authors, title, where and when it appeared, and its address.
    tables: Its tables and figures, in its order.
    readings: How its text is read.
  """

  name: str
  citation: str
  tables: tuple[Table, ...]
  readings: tuple[Reading, ...]
