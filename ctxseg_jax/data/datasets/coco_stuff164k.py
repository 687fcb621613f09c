"""COCO-Stuff 164k: 80 classes of things and 91 of stuff.

Reference: Caesar et al., "COCO-Stuff: Thing and Stuff Classes in Context", CVPR
2018. The splits are train2017 and val2017 of COCO.

Labels are read as released, with ids of 0 to 181 of which eleven do not occur,
or as converted for mmsegmentation, with train ids.
"""

import dataclasses
import pathlib

from ctxseg_jax.data import finding
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

# Colour and name by train id.
CLASS_NAMES, PALETTE = spec_lib.read_classes("""
00c040 person
00c040 bicycle
004060 car
80c0c0 motorcycle
004040 airplane
00c0e0 bus
00c0c0 train
80c040 truck
00c060 boat
80c040 traffic light
8020c0 fire hydrant
0000e0 stop sign
000040 parking meter
00a0c0 bench
800060 bird
8000c0 cat
0020c0 dog
8080e0 horse
0000c0 sheep
80a0c0 cow
808000 elephant
800020 bear
802000 zebra
800080 giraffe
408020 backpack
00a000 umbrella
000000 handbag
c080a0 tie
002000 suitcase
008080 frisbee
4080a0 skis
80a000 snowboard
008000 sports ball
c08020 kite
806080 baseball bat
000080 baseball glove
400020 skateboard
00e080 surfboard
800000 tennis racket
c000a0 bottle
006080 wine glass
808080 cup
4000a0 fork
80e080 knife
808040 spoon
c00020 bowl
806000 banana
8000c0 apple
008020 sandwich
40e000 orange
000040 broccoli
8080a0 carrot
406000 hot dog
0080c0 pizza
0080a0 donut
c0e000 cake
008040 chair
808020 couch
c02080 potted plant
0040c0 bed
000020 dining table
40a080 toilet
804040 tv
8000a0 laptop
402080 mouse
80c0c0 remote
0000a0 keyboard
c0a080 cell phone
80c000 microwave
800060 oven
c02000 toaster
804080 sink
408060 refrigerator
40a000 book
004000 clock
c080e0 vase
402000 scissors
00c080 teddy bear
4080e0 hair drier
c0a000 toothbrush
00c000 banner
c08060 blanket
c06080 branch
004080 bridge
400060 building-other
40e080 bush
804000 cabinet
c000e0 cage
406080 cardboard
80c080 carpet
4000e0 ceiling-other
c0e080 ceiling-tile
80c040 cloth
c00060 clothes
c06000 clouds
8040c0 counter
008060 cupboard
00e000 curtain
404040 desk-stuff
8080e0 dirt
006000 door-stuff
40c0c0 fence
0080e0 floor-marble
80e000 floor-other
40c040 floor-stone
808060 floor-tile
802080 floor-wood
4000c0 flower
004060 fog
00a080 food-other
c00040 fruit
8040e0 furniture-other
002080 grass
c080c0 gravel
0040e0 ground-other
80a080 hill
c08000 house
804020 leaves
802040 light
c00080 mat
40c020 metal
00a040 mirror-stuff
400000 moss
c0c0a0 mountain
002040 mud
408080 napkin
40c0a0 net
80a040 paper
408000 pavement
c0c020 pillow
8060c0 plant-other
400080 plastic
404020 platform
00e0c0 playingfield
c00000 railing
c040a0 railroad
0060c0 river
c08080 road
4040a0 rock
80e0c0 roof
c08040 rug
c04020 salad
806040 sand
c000c0 sea
00c020 shelf
40e040 sky-other
400040 skyscraper
80c0a0 snow
406040 solid-other
4080c0 stairs
00c0a0 stone
c0e040 straw
408040 structural-other
80c020 table
c020c0 tent
4040c0 textile-other
004020 towel
40a0c0 tree
c04040 vegetable
8040a0 wall-brick
4020c0 wall-concrete
c0c0c0 wall-other
0040a0 wall-panel
c0a0c0 wall-stone
c0c000 wall-tile
804060 wall-wood
c02040 water-other
c04080 waterdrops
40c060 window-blind
40a040 window-other
404000 wood
""")
NUM_RAW = 182
# Categories of COCO that were never annotated.
UNUSED_IDS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
UNLABELLED = 255

_TRAIN_IDS_END = "_labelTrainIds"
LAYOUTS = (
    "images/{train2017,val2017}/*.jpg with labels in "
    "annotations/{train2017,val2017}/*.png or *_labelTrainIds.png; in the "
    "folder itself or in coco_stuff164k/ inside it"
)


def find(
    source: pathlib.Path, *, any_size: bool
) -> dict[str, list[finding.Pair]]:
  """Finds the pairs of both splits, without opening an image.

  Args:
    source: A folder in the layout of `SPEC.layouts`.
    any_size: Whether a split may be missing or incomplete.

  Returns:
    The pairs of each split, by name.

  Raises:
    UserError: The layout is unknown or a file is missing.
  """
  root = finding.find_root(
      source,
      ("", "coco_stuff164k"),
      ("annotations/train2017", "annotations/val2017"),
      LAYOUTS,
  )
  splits = {
      split: finding.Split(
          root / "images" / f"{split}2017",
          root / "annotations" / f"{split}2017",
          # Labels as released count before converted ones.
          label_ends=("", _TRAIN_IDS_END),
      )
      for split in ("train", "val")
  }
  return finding.find_splits(splits, LAYOUTS, any_size=any_size)


def read(spec: spec_lib.DatasetSpec, pair: finding.Pair) -> spec_lib.Example:
  """Reads a pair whose label is as released or as converted."""
  if is_converted(pair.label):
    spec = _TRAIN_ID_SPEC
  return pairs.read(spec, pair)


def is_converted(label: pathlib.Path) -> bool:
  """Whether a label holds train ids, by its name."""
  return label.stem.endswith(_TRAIN_IDS_END)


SPEC = spec_lib.DatasetSpec(
    name="coco_stuff164k",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.label_map(
        {
            raw: train
            for train, raw in enumerate(
                sorted(set(range(NUM_RAW)) - set(UNUSED_IDS))
            )
        },
        255,
    ),
    void_ids=(UNLABELLED,),
    mean=spec_lib.IMAGENET_MEAN,
    split_sizes={"train": 118287, "val": 5000},
    find=find,
    read=read,
    needs_source=True,
    description=__doc__,
    layouts=LAYOUTS,
)
_TRAIN_ID_SPEC = dataclasses.replace(
    SPEC,
    label_map=spec_lib.label_map({i: i for i in range(len(CLASS_NAMES))}, 255),
)
