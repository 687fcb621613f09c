"""Files of weights: as PyTorch writes them, damaged, and made to harm."""

import io
import json
import os
import pathlib
import pickle
import struct
import tempfile
import time
import tracemalloc
import warnings
import zipfile
import zlib

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import ml_dtypes
import numpy as np
import safetensors.numpy

from ctxseg_jax import errors
from ctxseg_jax.pretrained.formats import pth_zip
from ctxseg_jax.pretrained.formats import safetensors_file
from ctxseg_jax.pretrained.formats import weight_files

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "torch_files"

# A folder that every hostile pickle would make, were it run.
PLANTED = pathlib.Path(tempfile.gettempdir()) / f"planted_{os.getpid()}"


# Instructions of a pickle, one function each.


def text(value):
  data = value.encode()
  return b"X" + len(data).to_bytes(4, "little") + data


def number(value):
  data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
  return b"\x8a" + bytes([len(data)]) + data


def numbers(*values):
  return together(*map(number, values))


def together(*items):
  return b"(" + b"".join(items) + b"t"


def name(module, attribute):
  return f"c{module}\n{attribute}\n".encode()


def call(function, *args):
  return function + together(*args) + b"R"


def dictionary(**items):
  pairs = (text(key) + value for key, value in items.items())
  return b"}(" + b"".join(pairs) + b"u"


def storage(size, key="0", kind="FloatStorage", module="torch"):
  return (
      together(
          text("storage"),
          name(module, kind),
          text(key),
          text("cpu"),
          number(size),
      )
      + b"Q"
  )


def tensor(
    shape=(2, 3),
    strides=(3, 1),
    offset=0,
    size=6,
    function="_rebuild_tensor_v2",
    more=b"",
    **where,
):
  return call(
      name("torch._utils", function),
      storage(size, **where),
      number(offset),
      numbers(*shape),
      numbers(*strides),
      b"\x89",
      call(name("collections", "OrderedDict")),
      more,
  )


# What makes PLANTED when it is unpickled.
HARM = call(name("posix", "mkdir"), text(str(PLANTED)))
HARM_BY_NAME = call(
    name("builtins", "eval"), text(f"__import__('os').mkdir({str(PLANTED)!r})")
)
HARM_IN_STATE = name("argparse", "Namespace") + b")\x81" + HARM + b"b"

VALUES = np.arange(6, dtype=np.float32)


def archive(pickled, folder="net", **records):
  """Returns a file as `torch.save` writes it, around instructions of a pickle.

  `records` are further ones or others, by name; None leaves one out. `data_0`
  stands for `data/0`.
  """
  contents = {
      "data.pkl": b"\x80\x02" + pickled + b".",
      "byteorder": b"little",
      "data/0": VALUES.tobytes(),
      "version": b"3\n",
  } | {key.replace("data_", "data/"): value for key, value in records.items()}
  return pack(
      {f"{folder}/{k}": v for k, v in contents.items() if v is not None}
  )


def pack(contents, compression=zipfile.ZIP_STORED):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", compression) as z:
    for key, value in contents.items():
      z.writestr(key, value)
  return file.getvalue()


def pack_twice(first, second):
  """Returns an archive with a record there twice."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as z:
    z.writestr("net/data.pkl", first)
    # Of another name, which is then changed in both of its places.
    z.writestr("net/data.pkz", second)
  return file.getvalue().replace(b"data.pkz", b"data.pkl")


STORAGES = ((text("0"), 6, VALUES.tobytes()),)


def legacy(pickled, storages=STORAGES, version=1001, machine=None):
  """Returns a file as PyTorch wrote it before 1.6, around instructions.

  `storages` are key, size and bytes of each; `machine` are instructions for
  what the machine was like.
  """
  machine = dictionary(little_endian=b"\x88") if machine is None else machine
  keys = b"](" + b"".join(key for key, _, _ in storages) + b"e"
  parts = (number(0x1950A86A20F9469CFC6C), number(version), machine)
  return b"".join(
      (
          *(b"\x80\x02" + part + b"." for part in (*parts, pickled, keys)),
          *(size.to_bytes(8, "little") + x for _, size, x in storages),
      )
  )


def python2_string(value):
  return b"U" + bytes([len(value)]) + value


def holding(value, **records):
  return archive(dictionary(x=value), **records)


def one(*args, **kwargs):
  return holding(tensor(*args, **kwargs))


def former(*args, **kwargs):
  return legacy(dictionary(x=tensor()), *args, **kwargs)


def bad(data, pattern):
  """Returns a file and what the message says of it."""
  return data, pattern


GOOD = archive(dictionary(weight=tensor()))
FORMER = legacy(dictionary(weight=tensor()))


def altered(data, before, after):
  """Returns the file with some bytes replaced by others, once."""
  assert before in data
  return data.replace(before, after, 1)


def central(data, field, value):
  """Returns an archive with a field of its first listed record changed."""
  position = data.index(b"PK\x01\x02") + field[0]
  packed = struct.pack(field[1], value)
  return data[:position] + packed + data[position + len(packed) :]


# Place in the entry and format.
FLAGS, CRC, COMPRESSED = (8, "<H"), (16, "<I"), (20, "<I")
SIZE, OFFSET = (24, "<I"), (42, "<I")


def header(value, body=b"", length=None):
  """Returns a .safetensors file with a header as it is given."""
  data = value if isinstance(value, bytes) else json.dumps(value).encode()
  length = len(data) if length is None else length
  return length.to_bytes(8, "little") + data + body


def entry(begin=0, end=8, shape=(2,), dtype="F32"):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def safe(*args, **kwargs):
  """Returns a .safetensors file of 8 bytes with one entry; see `entry`."""
  return header({"a": entry(*args, **kwargs)}, bytes(8))


SAFE = safe()

# By what is wrong: the file, and what the message says.
DAMAGED = {
    # No weights at all.
    "empty": bad(b"", "empty"),
    "a Git LFS pointer": bad(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "a web page": bad(b"\n<!DOCTYPE html><html>404</html>", "a web page"),
    "an XML error": bad(b'<?xml version="1.0"?><Error/>', "a web page"),
    "text": bad(b"conv1.weight 1.0 2.0\n", "not weights"),
    "one byte": bad(b"P", "not weights"),
    "the start of an archive": bad(b"PK\x03\x04", "damaged zip"),
    "PyTorch's first format": bad(
        b"sys_info".ljust(257, b"\0") + b"ustar\x0000".ljust(300, b"\0"),
        r"the first PyTorch.*torch\.save\(torch\.load",
    ),
    "a pickle that harms": bad(b"\x80\x02" + HARM + b".", "a pickle"),
    "a picture": bad(b"\x89PNG\r\n\x1a\n" + bytes(50), "not weights.*PNG"),
    # Archives.
    "an archive of nothing": bad(
        b"PK\x03\x04" + bytes(100) + pack({}), "without records"
    ),
    "cut in half": bad(GOOD[: len(GOOD) // 2], "damaged zip"),
    "cut by a byte": bad(GOOD[:-1], "damaged zip"),
    "the start missing": bad(b"PK\x03\x04" + GOOD[100:], "damaged|no record"),
    "a bit of a storage flipped": bad(
        altered(GOOD, VALUES.tobytes(), VALUES.tobytes()[:-1] + b"\x41"),
        "checksum of 'net/data/0'",
    ),
    "a bit of the pickle flipped": bad(
        altered(GOOD, b"weight", b"weighs"), "checksum of 'net/data.pkl'"
    ),
    "a wrong checksum": bad(central(GOOD, CRC, 1), "checksum"),
    "a record encrypted": bad(central(GOOD, FLAGS, 1), "encrypted"),
    "a record outside": bad(central(GOOD, OFFSET, 2**31), "outside|damaged"),
    "a record that starts elsewhere": bad(
        central(GOOD, OFFSET, 3), "no record"
    ),
    "a record longer than the file": bad(
        central(central(GOOD, SIZE, 2**31), COMPRESSED, 2**31), "outside"
    ),
    "a record that grows": bad(central(GOOD, SIZE, 2**31), "compressed"),
    "records over each other": bad(
        central(central(GOOD, SIZE, 500), COMPRESSED, 500), "over another"
    ),
    "a record twice": bad(
        pack_twice(b"\x80\x02}.", b"\x80\x02" + HARM + b"."), "twice"
    ),
    "a compressed bomb": bad(
        pack(
            {"net/data.pkl": b"\x80\x02}.", "net/data/0": bytes(10**7)}
            | {"net/data.pkl": b"\x80\x02" + dictionary(x=tensor()) + b"."},
            zipfile.ZIP_DEFLATED,
        ),
        "compressed",
    ),
    "an archive of a compressed file": bad(
        pack({"net.pth": GOOD}, zipfile.ZIP_DEFLATED),
        "without data.pkl.*Pass the file of the weights",
    ),
    "an archive of arrays": bad(
        pack({"x.npy": bytes(100), "y.npy": bytes(100)}), "'x.npy'.*one folder"
    ),
    "a path out of the folder": bad(
        pack({"net/data.pkl": b"}.", "net/../../x": b""}),
        r"'net/\.\./\.\./x'.*one folder",
    ),
    "a path from the root": bad(
        pack({"net/data.pkl": b"}.", "/etc/passwd": b""}),
        "'/etc/passwd'.*one folder",
    ),
    "a path with backslashes": bad(
        pack({"net/data.pkl": b"}.", "net/..\\x": b""}), "one folder"
    ),
    "two folders": bad(
        pack({"net/data.pkl": b"}.", "other/data.pkl": b"}."}), "one folder"
    ),
    "no pickle": bad(archive(b"", **{"data.pkl": None}), "without data.pkl"),
    "a program": bad(archive(b"}", **{"constants.pkl": b""}), "TorchScript"),
    "another byte order": bad(
        holding(tensor(), byteorder=b"big"),
        "byte order b'big'.*expected little",
    ),
    "an unknown byte order": bad(
        holding(tensor(), byteorder=b"\n" * 10**5), "byte order"
    ),
    # Pickles that harm.
    "harm in place of all": bad(archive(HARM), r"posix\.mkdir in place"),
    "harm by its name": bad(archive(HARM_BY_NAME), r"builtins\.eval in place"),
    "harm in a state": bad(archive(HARM_IN_STATE), "argparse.Namespace"),
    "harm in place of the weights": bad(
        archive(dictionary(state_dict=HARM)),
        r"'state_dict' is an object of posix\.mkdir",
    ),
    "harm in place of a tensor": bad(
        holding(HARM), r"'x' is an object of posix\.mkdir"
    ),
    "harm in place of a storage": bad(
        holding(
            call(
                name("torch._utils", "_rebuild_tensor_v2"),
                HARM,
                number(0),
                numbers(6),
                numbers(1),
                b"\x89",
                b"N",
            )
        ),
        r"'x'.*posix\.mkdir for a storage",
    ),
    "harm in place of a type": bad(
        one(kind="system", module="os"), "'x' is of type os.system"
    ),
    "a storage of another library": bad(
        one(module="os"), "'x' is of type os.FloatStorage"
    ),
    "harm in place of a shape": bad(
        archive(altered(dictionary(x=tensor()), numbers(2, 3), HARM)),
        "no valid shape",
    ),
    "harm in place of an extent": bad(
        archive(altered(dictionary(x=tensor()), numbers(2, 3), together(HARM))),
        "no valid shape",
    ),
    "harm as the name of a tensor": bad(
        archive(b"}(" + HARM + tensor() + b"u"), "no text"
    ),
    "a name over several lines": bad(
        archive(call(b"\x8c\x04os\n\n\x8c\x02a\n\x93")),
        "in place of the weights",
    ),
    "a name of the terminal": bad(
        archive(dictionary(**{"\x1b[2J\r\n" + "x" * 1000: b"K\x01"})),
        "is a number",
    ),
    # Pickles that are damaged.
    "a pickle without an end": bad(
        archive(b"", **{"data.pkl": b"\x80\x02}"}), "STOP"
    ),
    "an empty pickle": bad(archive(b"", **{"data.pkl": b""}), "STOP"),
    "no pickle but text": bad(
        archive(b"", **{"data.pkl": b"hello"}), "damaged pickle"
    ),
    "items for a number": bad(archive(b"K\x01K\x02K\x03s"), "damaged pickle"),
    "an empty stack": bad(archive(b"0"), "damaged pickle"),
    "a pickle within": bad(
        archive(b"B" + len(GOOD).to_bytes(4, "little") + GOOD), "bytes in place"
    ),
    "a far number in the memo": bad(archive(b"Nr\xff\xff\xff\x7f"), "nothing"),
    "a text of gigabytes": bad(archive(b"X\xff\xff\xff\x7fa"), "bytes|data"),
    "a text of exabytes": bad(
        archive(b"\x8d" + b"\xff" * 7 + b"\x7fa"), "bytes"
    ),
    # Something else than weights.
    "nothing": bad(archive(b"N"), "nothing in place"),
    "no tensors": bad(archive(b"}"), "holds no tensors"),
    "a list of tensors": bad(
        archive(b"]" + tensor() + b"a"), "a list in place"
    ),
    "a tensor alone": bad(archive(tensor()), "_rebuild_tensor_v2 in place"),
    "a whole model": bad(
        archive(
            name("models", "Net") + b")\x81" + dictionary(x=tensor()) + b"b"
        ),
        r"models\.Net in place.*model\.state_dict\(\)",
    ),
    "settings alone": bad(
        archive(dictionary(epoch=b"K\x05")), "'epoch' is a number"
    ),
    "a state dict within itself": bad(
        archive(b"}q\0X\x05\0\0\0modelh\0s"), "within itself"
    ),
    "weights in weights": bad(
        holding(dictionary(y=tensor())), "'x' is a dictionary"
    ),
    # Tensors that are not what they say.
    "a tensor of terabytes": bad(one((10**6, 10**6), (10**6, 1)), "'x'.*shape"),
    "a storage of terabytes": bad(
        one((10**12,), (1,), size=10**12), "'x'.*24 bytes where"
    ),
    "one value a trillion times": bad(
        one((10**6, 10**6), (0, 0)), "'x' is made of fewer values"
    ),
    "a storage too short": bad(
        one((8,), (1,), size=8), "'x'.*24 bytes where 8 values"
    ),
    "a storage too long": bad(
        one((2,), (1,), size=2), "'x'.*24 bytes where 2 values"
    ),
    "a storage of another type": bad(
        one(kind="DoubleStorage"), "'x'.*24 bytes where 6 values of float64"
    ),
    "a missing storage": bad(one(key="1"), "'x'.*storage '1' is missing"),
    "a storage elsewhere": bad(one(key="../data.pkl"), "'x'.*is missing"),
    "beyond the storage": bad(one(offset=1), r"'x'.*shape \(2, 3\)"),
    "strides beyond the storage": bad(
        one(strides=(4, 1)), r"'x'.*strides \(4, 1\)"
    ),
    "a negative stride": bad(one((6,), (-1,), offset=5), "'x'.*no valid"),
    "a negative offset": bad(one((6,), (1,), offset=-6), "'x'.*no valid"),
    "a negative extent": bad(one((-2, -3)), "'x'.*no valid"),
    "extents that overflow": bad(
        one((2**32, 2**32), (0, 0)), "'x'.*fewer values|'x'.*shape"
    ),
    "a number of a thousand bits": bad(one((2**1000,), (0,)), "'x'.*no valid"),
    "nothing, of a huge shape": bad(one((2**62, 2**62, 0), (1, 1, 1)), "'x'"),
    "a thousand dimensions": bad(
        one((1,) * 1000, (1,) * 1000), "'x'.*no valid"
    ),
    "strides missing": bad(one((2, 3), (1,)), "'x'.*no valid"),
    "arguments missing": bad(
        holding(call(name("torch._utils", "_rebuild_tensor_v2"))),
        "'x'.*fewer than 4 arguments",
    ),
    "a parameter of nothing": bad(
        holding(call(name("torch._utils", "_rebuild_parameter"))),
        "'x'.*fewer than 1 arguments",
    ),
    "a parameter of a parameter": bad(
        holding(
            call(
                name("torch._utils", "_rebuild_parameter"),
                call(name("torch._utils", "_rebuild_parameter"), tensor()),
            )
        ),
        "'x' is an object of torch._utils._rebuild_parameter",
    ),
    "a storage id that is none": bad(
        holding(altered(tensor(), text("storage"), b"K\x05")),
        "'x'.*storage without type",
    ),
    "a sparse tensor": bad(
        one(function="_rebuild_sparse_tensor"),
        "_rebuild_sparse_tensor.*to_dense",
    ),
    "a quantised tensor": bad(
        one(kind="QInt8Storage", size=24), r"torch\.QInt8Storage.*dequantize"
    ),
    "values that are no numbers": bad(
        holding(
            tensor(),
            data_0=np.array([0, 1, np.nan, 3, 4, 5], np.float32).tobytes(),
        ),
        "'x' holds values that are not finite",
    ),
    "a value that signals that it is no number": bad(
        holding(
            tensor((1,), (1,), size=1, kind="BFloat16Storage"),
            data_0=b"\x81\x7f",
        ),
        "'x' holds values that are not finite",
    ),
    "values without end": bad(
        holding(
            tensor(),
            data_0=np.array([0, 1, np.inf, 3, 4, 5], np.float32).tobytes(),
        ),
        "'x' holds values that are not finite",
    ),
    # PyTorch before 1.6.
    "former, no more than its number": bad(FORMER[:15], "STOP"),
    "former, cut by a byte": bad(FORMER[:-1], "6 values at byte .*, where 6"),
    "former, a byte more": bad(FORMER + b"\0", "1 bytes more"),
    "former, a file of exabytes": bad(
        legacy(
            dictionary(x=tensor((2**61,), (1,), size=2**61)),
            ((text("0"), 2**61, bytes(24)),),
        ),
        "2305843009213693952 values at",
    ),
    "former, another size": bad(
        former(((text("0"), 5, bytes(20)),)), "5 values at .* where 6"
    ),
    "former, another version": bad(former(version=1002), "another version"),
    "former, another byte order": bad(
        former(machine=dictionary(little_endian=b"\x89")),
        "another byte order; expected little",
    ),
    "former, harm in place of the machine": bad(
        former(machine=HARM), "another byte order"
    ),
    "former, harm in place of all": bad(
        legacy(HARM, ()), r"posix\.mkdir in place"
    ),
    "former, a whole model with its source": bad(
        legacy(
            together(
                text("module"),
                name("models", "Net"),
                text("models.py"),
                text("class Net:\n"),
            )
            + b"Q)\x81"
            + dictionary(x=tensor())
            + b"b"
        ),
        r"models\.Net in place.*model\.state_dict\(\)",
    ),
    "former, harm in place of a key": bad(
        former(((HARM, 6, bytes(24)),)), "storages other than"
    ),
    "former, harm outside": bad(
        legacy(dictionary(x=tensor(), y=HARM + b"Q")), "storage without type"
    ),
    "former, a storage twice": bad(
        former(((text("0"), 6, bytes(24)),) * 2), "storages other than"
    ),
    "former, a missing storage": bad(
        former(()), "24 bytes more|storage '0' is missing"
    ),
    "former, a storage of nothing": bad(
        former(((text("1"), 6, bytes(24)),)), "storages other than"
    ),
    "former, a part of a storage": bad(
        legacy(
            dictionary(
                x=altered(
                    tensor(), number(6) + b"t", number(6) + numbers() + b"t"
                )
            )
        ),
        "in a part of a storage",
    ),
    "former, a tensor of terabytes": bad(
        legacy(dictionary(x=tensor((10**6, 10**6), (10**6, 1)))), "'x'.*shape"
    ),
    "former, storages of two types": bad(
        legacy(dictionary(x=tensor(), y=tensor(kind="LongStorage"))),
        "6 values at",
    ),
    "pairs that are none": bad(
        legacy(call(name("collections", "OrderedDict"), b"](K\x01K\x02e"), ()),
        "something else than pairs",
    ),
    # .safetensors.
    "cut in its body": bad(SAFE[:-1], "cut short or damaged"),
    "cut in its header": bad(SAFE[:30], "a header of"),
    "more than it says": bad(SAFE + b"\0", "cut short or damaged"),
    "a header of exabytes": bad(header(b"{}", length=2**63), "a header of"),
    "a header beyond the end": bad(header(b"{}", length=3), "a header of"),
    "a header of megabytes": bad(
        header(b"{" + b" " * (5 * 2**20) + b"}"), "a header of 5242882 bytes"
    ),
    "a header of no JSON": bad(header(b"{" * 50), "damaged"),
    "a header of no text": bad(header(b'{"\xff\xfe": 1}'), "damaged"),
    "a header of lists": bad(header({"weight": [1, 2]}, bytes(8)), "damaged"),
    "a header without types": bad(header({"weight": {}}, bytes(8)), "damaged"),
    "a deep header": bad(header(b'{"x":' * 10**5 + b"}" * 10**5), "damaged"),
    "a deep unknown key": bad(
        header(
            b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"y":'
            + b"[" * 10**5
            + b"]" * 10**5
            + b"}}",
            bytes(8),
        ),
        "damaged",
    ),
    "offsets over each other": bad(
        header({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "damaged"
    ),
    "a name of the terminal in a header": bad(
        header({"\x1b[2J": entry(0, 8), "\x1b": entry(4, 12)}, bytes(12)),
        r"tensor `\\x1b",
    ),
    "a hole": bad(
        header({"a": entry(0, 8), "b": entry(12, 20)}, bytes(20)), "damaged"
    ),
    "offsets beyond the end": bad(
        header({"a": entry(0, 80, (20,))}), "damaged"
    ),
    "offsets the wrong way": bad(safe(8, 0), "damaged"),
    "negative offsets": bad(safe(-8, 0), "damaged"),
    "another size than the shape's": bad(safe(shape=(3,)), "damaged"),
    "a shape that overflows": bad(safe(shape=(2**33, 2**33)), "damaged"),
    "an unknown type": bad(safe(dtype="Q9"), "damaged"),
    "a type without a place": bad(
        safe(dtype="F8_E4M3", shape=(8,)),
        "'a' is of type F8_E4M3; expected one of F64",
    ),
    "a name twice": bad(
        header(
            '{{"a": {0}, "a": {0}}}'.format(json.dumps(entry())).encode(),
            bytes(8),
        ),
        "twice",
    ),
    "metadata that is no text": bad(
        header({"__metadata__": {"a": 1}, "a": entry()}, bytes(8)), "damaged"
    ),
    "no tensors in it": bad(header({}), "no tensors"),
    "metadata alone": bad(header({"__metadata__": {"a": "b"}}), "no tensors"),
    "its values are no numbers": bad(
        header({"a": entry()}, np.full(2, np.nan, np.float32).tobytes()),
        "'a' holds values that are not finite",
    ),
}

# Pickles that are long: what an instruction asks for takes more memory than
# the byte or two that it is long.
LONG = {
    "deep lists": bad(
        archive(b"]" * 30_000 + b"a" * (30_000 - 1)), "a list in"
    ),
    "deep tuples": bad(archive(b"N" + b"\x85" * 30_000), "a tuple in"),
    "deep calls": bad(
        archive(name("a", "b") + b")R" * 30_000), "call returned"
    ),
    "a storage a thousand times": bad(
        archive(
            dictionary(
                **{
                    f"x{i}": tensor((50_000,), (1,), size=50_000)
                    for i in range(1000)
                }
            ),
            data_0=bytes(200_000),
        ),
        "200000000 bytes share storages",
    ),
}


def read_tensors(path):
  return weight_files.read(path)[0]


class FileTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.path = self.folder / "weights.bin"

  def read(self, data):
    self.path.write_bytes(data)
    return read_tensors(self.path)

  def assert_refused(self, pattern, path=None, function=weight_files.read):
    """Asserts one line that names the file, what was expected, the remedy."""
    path = path or self.path
    with self.assertRaises(errors.UserError) as context:
      function(path)
    message = str(context.exception)
    self.assertTrue(message.startswith(f"{path}: "), message)
    self.assertRegex(message, pattern)
    self.assertRegex(message, r"; expected .*\. [A-Z].*\.$")
    self.assertTrue(message.isprintable(), ascii(message))
    self.assertLess(len(message), 700)


class GoldenTest(FileTest):

  @parameterized.parameters(
      "kinds.pth",
      "plain.pth",
      "mmengine.pth",
      "encoding.pth",
      "timm.pth",
      "legacy.pth",
      "legacy_mmengine.pth",
  )
  def test_tensors_are_those_of_pytorch(self, file):
    with np.load(GOLDEN / "expected.npz") as f:
      expected = {
          key.removeprefix(f"{file}/"): f[key]
          for key in f
          if key.startswith(f"{file}/")
      }
    got = read_tensors(GOLDEN / file)
    self.assertEqual(list(got), list(expected))
    for key, x in expected.items():
      dtype = ml_dtypes.bfloat16 if key == "bfloat16" else x.dtype
      self.assertEqual(got[key].dtype, dtype)
      np.testing.assert_array_equal(got[key].astype(x.dtype), x, key)
      self.assertEqual(got[key].shape, x.shape)

  def test_tensors_are_views_of_the_file(self):
    got = read_tensors(GOLDEN / "kinds.pth")
    self.assertTrue(np.shares_memory(got["base"], got["transposed"]))
    for x in got.values():
      self.assertFalse(x.size and x.flags.writeable)

  def test_strings_of_python_2(self):
    dictionaries = name("collections", "OrderedDict")
    storage_id = together(
        python2_string(b"storage"),
        name("torch", "FloatStorage"),
        python2_string(b"0"),
        python2_string(b"cuda:0"),
        number(6),
        b"N",
    )
    weight = call(
        name("torch._utils", "_rebuild_tensor"),
        storage_id + b"Q",
        number(0),
        numbers(3, 2),
        numbers(2, 1),
    )
    pair = b"](" + python2_string(b"module.weight") + weight + b"e"
    # What an ordered dictionary was to Python 2.
    weights = call(dictionaries, b"](" + pair + b"e")
    got = self.read(
        legacy(
            b"}" + python2_string(b"state_dict") + weights + b"s",
            ((python2_string(b"0"), 6, VALUES.tobytes()),),
        )
    )
    self.assertEqual(list(got), ["weight"])
    np.testing.assert_array_equal(got["weight"], VALUES.reshape(3, 2))

  def test_names_decide_nothing(self):
    got = self.read((GOLDEN / "plain.pth").read_bytes())
    self.assertIn("conv.weight", got)
    self.assertLen(self.read(SAFE), 1)

  @parameterized.parameters(
      ("legacy_complex.pth", r"a storage of type torch\.ComplexFloatStorage"),
      ("script.pt", "TorchScript"),
      ("whole_model.pth", r"an object of __main__\.Net in place"),
      ("quantized.pth", "'x' is an object of torch._utils._rebuild_qtensor"),
      ("sparse.pth", "'x' is an object of .*_rebuild_sparse_tensor"),
      ("complex.pth", r"'x' is of type torch\.ComplexFloatStorage"),
      ("negated.pth", "'x' is a view with signs"),
      ("float8.pth", "'x' is an object of torch._utils._rebuild_tensor_v3"),
      ("expanded.pth", "'x' is made of fewer values"),
  )
  def test_what_is_no_weights_here_is_named(self, file, pattern):
    self.assert_refused(pattern, GOLDEN / file)

  @parameterized.parameters("plain.pth", "mmengine.pth")
  def test_every_bit_of_a_storage_counts(self, file):
    data = (GOLDEN / file).read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as z:
      read = read_tensors(GOLDEN / file)
      storages = [
          i for i in z.infolist() if "/data/" in i.filename and i.file_size
      ]
    count = 0
    # The file begins with those of the weights.
    for info in storages[: len(read)]:
      length = struct.unpack_from("<HH", data, info.header_offset + 26)
      start = info.header_offset + 30 + sum(length)
      for position in range(start, start + info.file_size, 5):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with self.assertRaises(errors.UserError, msg=f"byte {position}"):
          self.read(damaged)
        count += 1
    self.assertGreater(count, 50)

  @parameterized.parameters(
      "kinds.pth", "mmengine.pth", "encoding.pth", "legacy.pth"
  )
  def test_every_cut_is_named(self, file):
    data = (GOLDEN / file).read_bytes()
    for length in range(0, len(data), 61):
      self.path.write_bytes(data[:length])
      self.assert_refused("expected weights")

  @hypothesis.settings(deadline=None, max_examples=300, derandomize=True)
  @hypothesis.given(
      st.sampled_from(
          ("kinds.pth", "mmengine.pth", "legacy_mmengine.pth", "safetensors")
      ),
      st.lists(
          st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
          min_size=1,
          max_size=4,
      ),
      st.booleans(),
  )
  def test_random_damage_is_named_or_does_no_harm(self, file, changes, mend):
    if file == "safetensors":
      data = bytearray(SAFE)
    else:
      data = bytearray((GOLDEN / file).read_bytes())
    for place, value in changes:
      data[int(place * len(data))] = value
    if mend and data.startswith(b"PK"):
      # What an attacker would: so that the pickle is read, damage and all.
      data = with_sums(bytes(data))
    self.path.write_bytes(data)
    try:
      read_tensors(self.path)
    except errors.UserError as error:
      self.assertTrue(str(error).isprintable(), error)


def with_sums(data):
  """Returns the archive with the checksums of what it holds now."""
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as z:
      records = z.infolist()
      start = z.start_dir
  except Exception:  # Damaged: there is nothing to put in order.
    return data
  data = bytearray(data)
  for info in records:
    if info.header_offset + 30 > len(data):
      continue
    length = struct.unpack_from("<HH", data, info.header_offset + 26)
    first = info.header_offset + 30 + sum(length)
    checksum = zlib.crc32(data[first : first + info.file_size])
    struct.pack_into("<I", data, start + 16, checksum)
    start += 46 + sum(struct.unpack_from("<HHH", data, start + 28))
    if start + 46 > len(data):
      break
  return bytes(data)


class HostileTest(FileTest):

  @parameterized.named_parameters(
      (key, data, pattern, 2 if key in DAMAGED else 128)
      for key, (data, pattern) in (DAMAGED | LONG).items()
  )
  def test_refused_in_one_line(self, data, pattern, times):
    self.path.write_bytes(data)
    start = time.monotonic()
    self.enter_context(warnings.catch_warnings())
    warnings.simplefilter("error")
    tracemalloc.start()
    self.addCleanup(tracemalloc.stop)
    self.assert_refused(pattern)
    _, peak = tracemalloc.get_traced_memory()
    self.assertLess(peak, times * len(data) + 2**17)
    self.assertLess(time.monotonic() - start, 10)
    self.assertFalse(PLANTED.exists())

  def test_there_are_many_of_them(self):
    self.assertGreater(len(DAMAGED | LONG), 100)

  @parameterized.parameters(HARM, HARM_BY_NAME)
  def test_the_harm_is_real(self, harm):
    pickle.loads(b"\x80\x02" + harm + b".")
    self.assertTrue(PLANTED.exists())
    PLANTED.rmdir()

  @parameterized.parameters(HARM, HARM_BY_NAME, HARM_IN_STATE)
  def test_harm_beside_the_weights_is_not_done(self, harm):
    weights = dictionary(weight=tensor())
    for pickled in (
        dictionary(state_dict=weights, meta=harm, optimizer=harm),
        dictionary(meta=harm, state_dict=weights),
        dictionary(message_hub=dictionary(x=harm), state_dict=weights),
        dictionary(meta=b"}" + harm + b"K\x01s", model=weights),
        # Called for nothing, and thrown away.
        harm + b"0" + weights,
        # The attributes of the dictionary, where PyTorch keeps versions.
        call(name("collections", "OrderedDict"))
        + weights[1:]
        + dictionary(_metadata=harm)
        + b"b",
        # Hooks on a gradient.
        dictionary(
            weight=call(
                name("torch._utils", "_rebuild_parameter"),
                tensor(),
                b"\x88",
                harm,
            )
        ),
    ):
      for data in (archive(pickled), legacy(pickled)):
        got = self.read(data)
        self.assertEqual(list(got), ["weight"])
        np.testing.assert_array_equal(got["weight"], VALUES.reshape(2, 3))
        self.assertFalse(PLANTED.exists())

  def test_paths_that_are_no_files(self):
    folder = self.folder
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    for path, pattern in (
        (folder, "a folder"),
        (folder / "none.pth", "no such file"),
        (folder / "none" / "none.pth", "no such file"),
        (pipe, "a pipe or device"),
        (pathlib.Path("/dev/zero"), "a pipe or device"),
        (folder / ("x" * 300), "too long"),
    ):
      self.assert_refused(pattern, path)

  def test_the_number_of_records_is_bounded(self):
    more = {f"data_{i}": b"" for i in range(1, 2000)}
    data = archive(dictionary(x=tensor()), **more)
    self.assertLen(self.read(data), 1)
    with absltest.mock.patch.object(pth_zip, "MOST_RECORDS", 2000):
      self.assert_refused("2000 records or more")


class NamesTest(FileTest):
  """What is wrapped around weights, and put before their names."""

  @parameterized.parameters(
      "state_dict", "model_state_dict", "model_state", "model", "net"
  )
  def test_wrapped(self, key):
    weights = dictionary(weight=tensor())
    other = dictionary(weight=tensor((3,), (1,)))
    got = self.read(
        archive(
            dictionary(
                epoch=b"K\x05", optimizer=other, **{key: weights}, iter=b"N"
            )
        )
    )
    self.assertEqual({k: v.shape for k, v in got.items()}, {"weight": (2, 3)})

  def test_wrapped_twice(self):
    weights = dictionary(state_dict=dictionary(weight=tensor()))
    got = self.read(archive(dictionary(model=weights)))
    self.assertEqual(list(got), ["weight"])

  def test_averages_come_before_what_they_are_of(self):
    average = dictionary(average=tensor())
    weights = dictionary(weight=tensor())
    for key in ("state_dict_ema", "model_ema"):
      got = self.read(
          archive(dictionary(**{"state_dict": weights, key: average}))
      )
      self.assertEqual(list(got), ["average"])
      got = self.read(archive(dictionary(**{"model": weights, key: b"N"})))
      self.assertEqual(list(got), ["weight"])

  def test_a_layer_of_such_a_name_is_a_layer(self):
    got = self.read(
        archive(dictionary(**{"model": tensor(), "net.weight": tensor()}))
    )
    self.assertEqual(list(got), ["model", "net.weight"])

  @parameterized.parameters(
      (("module.a", "module.b"), ("a", "b")),
      (("module.module.a", "module.module.b"), ("a", "b")),
      (("module.a", "b"), ("module.a", "b")),
      (("modules.a", "modules.b"), ("modules.a", "modules.b")),
      (("module.a", "module.module.b"), ("a", "module.b")),
  )
  def test_module_goes_where_all_have_it(self, before, after):
    got = self.read(archive(dictionary(**{k: tensor() for k in before})))
    self.assertEqual(tuple(got), after)
    safetensors_file.write(self.path, {k: VALUES for k in before}, {})
    self.assertCountEqual(read_tensors(self.path), after)


class SafetensorsTest(FileTest):

  def test_written_is_read(self):
    kinds = read_tensors(GOLDEN / "kinds.pth")
    metadata = {"source": "mmsegmentation\n\u00e9", "empty": ""}
    safetensors_file.write(self.path, kinds, metadata)
    got, read_metadata = weight_files.read(self.path)
    self.assertEqual(read_metadata, metadata)
    # Also by the library itself, which has no bfloat16 everywhere.
    others = safetensors.numpy.load(
        safetensors.numpy.save({"base": np.ascontiguousarray(kinds["base"])})
    )
    np.testing.assert_array_equal(others["base"], got["base"])
    self.assertCountEqual(got, kinds)
    for key, x in kinds.items():
      self.assertEqual((got[key].shape, got[key].dtype), (x.shape, x.dtype))
      np.testing.assert_array_equal(got[key], x, key)

  def test_by_the_library(self):
    tensors = {"a": VALUES, "b": np.arange(4, dtype=np.float16).reshape(2, 2)}
    got = self.read(safetensors.numpy.save(tensors))
    for key, x in tensors.items():
      np.testing.assert_array_equal(got[key], x)
      self.assertFalse(got[key].flags.writeable)
    self.assertEqual(weight_files.read(self.path)[1], {})
    safetensors_file.write(self.path, tensors, {"a": "b"})
    got = safetensors.numpy.load_file(self.path)
    for key, x in tensors.items():
      np.testing.assert_array_equal(got[key], x)

  def test_views_of_the_file_outlive_its_replacement(self):
    safetensors_file.write(self.path, {"a": VALUES}, {})
    before = read_tensors(self.path)
    safetensors_file.write(self.path, {"a": before["a"] + 1}, {})
    np.testing.assert_array_equal(before["a"], VALUES)
    np.testing.assert_array_equal(read_tensors(self.path)["a"], VALUES + 1)

  def test_a_failed_write_leaves_what_was_there(self):
    safetensors_file.write(self.path, {"a": VALUES}, {})
    full = OSError(28, "No space left on device")
    for function in ("fsync", "replace"):
      with absltest.mock.patch.object(os, function, side_effect=full):
        self.assert_refused(
            "cannot be written.*No space left",
            function=lambda p: safetensors_file.write(p, {"a": VALUES + 1}, {}),
        )
      self.assertEqual(list(self.folder.iterdir()), [self.path])
      np.testing.assert_array_equal(read_tensors(self.path)["a"], VALUES)

  def test_where_nothing_can_be_written(self):
    for pattern, path in (
        ("no such file", self.folder / "none" / "x.safetensors"),
        ("cannot be written", self.folder),
    ):
      self.assert_refused(
          pattern, path, lambda p: safetensors_file.write(p, {"a": VALUES}, {})
      )

  def test_others_may_read_what_is_written(self):
    safetensors_file.write(self.path, {"a": VALUES}, {})
    other = self.folder / "other"
    other.touch()
    self.assertEqual(self.path.stat().st_mode, other.stat().st_mode)


if __name__ == "__main__":
  absltest.main()
