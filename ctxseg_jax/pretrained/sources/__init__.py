"""Weights that users have: from other projects' files to our variables.

files.py      reading .pth and .safetensors; pth.py, ... are its parts
naming.py     rules: what a path of ours is called elsewhere
<source>.py   the rules of one project
transfer.py   the strict transfer, and the summary of it
initial.py    `config.init_from`: a backbone to start training from
convert.py    the command: a whole network to a work dir
export.py     the command: a work dir to one safetensors file
"""

from ctxseg_jax.pretrained.sources import huggingface
from ctxseg_jax.pretrained.sources import mmseg
from ctxseg_jax.pretrained.sources import own
from ctxseg_jax.pretrained.sources import pytorch_encoding
from ctxseg_jax.pretrained.sources import timm
from ctxseg_jax.pretrained.sources import torchvision

SOURCES = {
    "ctxseg_jax": own.SOURCE,
    "huggingface": huggingface.SOURCE,
    "mmseg": mmseg.SOURCE,
    "pytorch_encoding": pytorch_encoding.SOURCE,
    "timm": timm.SOURCE,
    "torchvision": torchvision.SOURCE,
}
