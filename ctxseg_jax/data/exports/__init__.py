"""Exports of annotation tools, read as the tools write them.

Each reader takes the folder of the export and returns `contents.Contents`, or
None where the files that mark its tool's exports are not there.
"""

from ctxseg_jax.data.exports import coco
from ctxseg_jax.data.exports import cvat
from ctxseg_jax.data.exports import labelme
from ctxseg_jax.data.exports import roboflow

READERS = (cvat.read, roboflow.read, labelme.read, coco.read)
