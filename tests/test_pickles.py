"""Pickles are read as `pickle` reads them, and nothing in them is run."""

import collections
import os
import pickle
import tempfile
import time
import tracemalloc

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import numpy as np

from ctxseg_jax import pickles

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
)


def nested(leaves):
  return st.recursive(
      leaves,
      lambda x: st.lists(x, max_size=5)
      | st.tuples(x, x)
      | st.tuples(x, x, x, x)
      | st.dictionaries(st.text(max_size=3), x, max_size=5),
      max_leaves=20,
  )


class ReadTest(parameterized.TestCase):

  @hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
  @hypothesis.given(nested(LEAVES), nested(LEAVES | st.binary(max_size=300)))
  def test_plain_values_are_those_of_pickle(self, text, with_bytes):
    for protocol in range(6):
      # Protocols before the third call a function to make bytes.
      value = with_bytes if protocol >= 3 else text
      got = pickles.read(pickle.dumps(value, protocol))
      self.assertEqual(repr(got), repr(value))

  def test_what_is_shared_stays_shared(self):
    part = [1]
    circle = []
    circle.append(circle)
    for protocol in range(6):
      got = pickles.read(pickle.dumps([part, (part, 2), circle], protocol))
      self.assertIs(got[0], got[1][0])
      self.assertIs(got[2], got[2][0])

  def test_strings_of_python_2_are_bytes(self):
    for data in (b"U\x02\xe9a.", b"T\x02\0\0\0\xe9a."):
      self.assertEqual(pickles.read(data), b"\xe9a")
    self.assertEqual(pickles.read(b"S'ab'\n."), b"ab")

  @parameterized.parameters(*range(6))
  def test_objects_are_noted(self, protocol):
    value = collections.OrderedDict(a=1, b=[2])
    got = pickles.read(pickle.dumps(value, protocol))
    self.assertEqual(got.origin, ("collections", "OrderedDict"))
    self.assertEqual(got.items, {"a": 1, "b": [2]})
    got = pickles.read(pickle.dumps(collections.deque([1, 2, 3], 4), protocol))
    self.assertEqual(got.origin, ("collections", "deque"))
    self.assertEqual(got.args, ((), 4))
    self.assertEqual(got.elements, [1, 2, 3])
    got = pickles.read(pickle.dumps(np.dtype(np.int16), protocol))
    self.assertEqual(got.origin, ("numpy", "dtype"))
    self.assertEqual(got.args[0], "i2")
    self.assertEqual(got.state[1], "<")

  def test_sets_and_keys_of_any_kind(self):
    for value in (
        {1, 2},
        frozenset((1, 2)),
        {"a": 1, b"b": 2, 3: 4, (5,): 6, None: 7, 2**80: 8},
        {i: i for i in range(10_000)},
    ):
      self.assertEqual(pickles.read(pickle.dumps(value, 4)), value)

  def test_nothing_is_run_whatever_asks_for_it(self):
    root = tempfile.TemporaryDirectory()
    self.addCleanup(root.cleanup)
    folder = f"{root.name}/planted"
    path = b"X" + len(folder).to_bytes(4, "little") + folder.encode()
    code = f"__import__('os').mkdir({folder!r})".encode()
    effective = {
        "REDUCE": b"cposix\nmkdir\n" + path + b"\x85R.",
        "STACK_GLOBAL": b"\x8c\x05posix\x8c\x05mkdir\x93" + path + b"\x85R.",
        "OBJ": b"(cposix\nmkdir\n" + path + b"o.",
        "INST": b"(" + path + b"iposix\nmkdir\n.",
        "eval": b"cbuiltins\neval\nX"
        + len(code).to_bytes(4, "little")
        + code
        + b"\x85R.",
        "in a key": b"}cposix\nmkdir\n" + path + b"\x85RK\x01s.",
        "thrown away": b"cposix\nmkdir\n" + path + b"\x85R0N.",
    }
    for name, data in effective.items():
      with self.subTest(name):
        pickles.read(data)
        self.assertFalse(os.path.exists(folder))
        pickle.loads(data)
        self.assertTrue(os.path.exists(folder))
        os.rmdir(folder)
    for data in (
        b"cposix\nmkdir\n" + path + b"\x85\x81.",
        b"cposix\nmkdir\n" + path + b"\x85}\x92.",
        b"cposix\nmkdir\n)R}U\x0c__setstate__cposix\nmkdir\nsb" + path + b"b.",
        b"\x8c\x08builtins\x8c\x0dstr.__class__\x93" + path + b"\x85R.",
    ):
      self.assertIsInstance(pickles.read(data), pickles.Noted)
      self.assertFalse(os.path.exists(folder))

  @parameterized.named_parameters(
      ("empty", b""),
      ("no end", b"K\x01"),
      ("nothing on the stack", b"."),
      ("no mark", b"t."),
      ("no such instruction", b"\xff."),
      ("text that is none", b"X\x01\0\0\0\xff."),
      ("longer than the file", b"B\xff\xff\xff\x7fab."),
      ("far longer than the file", b"\x8e" + b"\xff" * 7 + b"\x7fab."),
      ("negative length", b"T\xff\xff\xff\xffab."),
      ("a number of many digits", b"I" + b"9" * 5000 + b"\n."),
      ("recalled before it is memorised", b"h\x05."),
      ("items for a number", b"K\x01K\x02K\x03s."),
      ("items for a function", b"cos\nsystem\nK\x02K\x03s."),
      ("a key without a value", b"}(K\x01u."),
      ("a state for a function", b"cos\nsystem\n}b."),
      ("a state for a list", b"]}b."),
      ("elements for a dictionary", b"}K\x01a."),
      ("elements for a tuple", b")(K\x01e."),
      ("a name that is a number", b"K\x01K\x02\x93."),
      ("a name of a call", b"\x8c\x02os(cos\nsystem\no\x93."),
      ("an extension", b"\x82\x01."),
      ("a buffer outside", b"\x97."),
      ("a call with one value", b"K\x01R."),
  )
  def test_damage_is_a_value_error(self, data):
    with self.assertRaises(ValueError):
      pickles.read(data)

  def test_every_cut_is_a_value_error(self):
    data = pickle.dumps({"a": [1, 2.5, "text", b"bytes"], "b": {3: None}}, 4)
    for length in range(len(data)):
      with self.assertRaises(ValueError, msg=str(length)):
        pickles.read(data[:length])

  def test_a_number_far_away_in_the_memo_takes_no_memory(self):
    # `pickle` makes room for all numbers up to it.
    tracemalloc.start()
    self.addCleanup(tracemalloc.stop)
    with self.assertRaisesRegex(ValueError, "memo number 2147483647"):
      pickles.read(b"K\x05r\xff\xff\xff\x7f.")
    self.assertLess(tracemalloc.get_traced_memory()[1], 10**5)

  def test_nesting_has_no_depth_that_ends_the_process(self):
    depth = 200_000
    for data in (
        b"]" * depth + b"a" * (depth - 1) + b".",
        b"K\x01" + b"\x85" * depth + b".",
        b"cos\nsystem\n" + b")R" * depth + b".",
        b"cos\nsystem\nq\0)" + b"Rh\0\x85" * depth + b".",
    ):
      value = pickles.read(data)
      self.assertLess(len(pickles.describe(value)), 100)
      del value
    # As a key: to hash it would be to descend.
    with self.assertRaisesRegex(ValueError, "keys that take long"):
      pickles.read(b"}K\x01" + b"\x85" * depth + b"K\x01s.")

  def test_keys_that_take_forever_to_hash_do_not(self):
    start = time.monotonic()
    # Each is a pair of the one before it.
    doubled = b"K\x01" + b"q\0h\0\x86" * 200
    # All have the hash 0.
    numbers = [
        b"\x8a\x0c" + (i * (2**61 - 1)).to_bytes(12, "little")
        for i in range(1, 50_000)
    ]
    items = b"".join(number + b"N" for number in numbers)
    elements = b"".join(numbers)
    for data in (
        b"}" + doubled + b"K\x01s.",
        b"}(" + doubled + b"K\x01u.",
        b"(" + doubled + b"K\x01d.",
        b"\x8f(" + doubled + b"\x90.",
        b"(" + doubled + b"\x91.",
        b"cos\nsystem\n)R" + doubled + b"K\x01s.",
        # Through what leaves a value as it is.
        b"}" + doubled + b"Nb(u2K\x01s.",
        b"}" + doubled + b"r\x05\0\0\0" + b"0j\x05\0\0\0K\x01s.",
        b"}(" + items + b"u.",
        b"(" + items + b"d.",
        b"\x8f(" + elements + b"\x90.",
        b"(" + elements + b"\x91.",
    ):
      with self.assertRaisesRegex(ValueError, "keys that take long"):
        pickles.read(data)
    self.assertLess(time.monotonic() - start, 10)

  def test_the_number_of_instructions_is_bounded(self):
    with absltest.mock.patch.object(pickles, "MOST_INSTRUCTIONS", 1000):
      pickles.read(b"]" * 999 + b".")
      with self.assertRaisesRegex(ValueError, "more than 1000 instructions"):
        pickles.read(b"]" * 1000 + b".")

  def test_descriptions_are_one_short_line(self):
    for name in ("a\nb", "x" * 10**6, "\x1b[2J", "\u2028"):
      encoded = b"X" + len(name.encode()).to_bytes(4, "little") + name.encode()
      for data in (
          encoded * 2 + b"\x93.",
          b"X\1\0\0\0m" + encoded + b"\x93)R.",
      ):
        text = pickles.describe(pickles.read(data))
        self.assertLess(len(text), 800)
        self.assertTrue(text.isprintable(), text)


if __name__ == "__main__":
  absltest.main()
