"""A user's own images: what is read, what is written, what is left alone."""

import dataclasses
import hashlib
import os
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image
import test_segmentation

from ctxseg_jax import errors
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data.datasets import context_scenes
from ctxseg_jax.evaluation import outputs
from ctxseg_jax.evaluation import predictions

SPEC = dataclasses.replace(
    context_scenes.SPEC,
    class_names=context_scenes.SPEC.class_names[:4],
    palette=context_scenes.SPEC.palette[:4],
    label_map=spec_lib.label_map({i: i for i in range(4)}, 255),
)


class FolderCase(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.photos = self.folder / "photos"
    self.photos.mkdir()
    self.output = self.folder / "out"

  def add_photos(self, *names):
    for i, name in enumerate(names):
      [image] = test_segmentation.make_images((6 + i, 9))
      Image.fromarray(image).save(self.photos / name)

  def write(self, images=None, output=None, spec=SPEC, **kw):
    return predictions.write_maps(
        *test_segmentation.plain_predictor(),
        predictions.list_images(images or self.photos),
        output or self.output,
        spec,
        **kw,
    )

  def assert_refused(self, message, **kw):
    """Refused before anything is written or changed."""
    before = contents(self.folder)
    with self.assertRaisesRegex(errors.UserError, message) as caught:
      self.write(**kw)
    self.assertNotIn("\n", str(caught.exception))
    self.assertEqual(contents(self.folder), before)


def contents(folder):
  return {
      path: hashlib.sha256(path.read_bytes()).digest()
      for path in folder.rglob("*")
      if path.is_file()
  }


class WriteTest(FolderCase):

  def test_again_into_the_same_folder(self):
    self.add_photos("a.png", "b.jpg")
    self.assertEqual(self.write(), 2)
    first = contents(self.output)
    names = {"a.png", "a_overlay.png", "b.png", "b_overlay.png", outputs.LIST}
    self.assertEqual({path.name for path in first}, names)
    self.assertEqual(self.write(), 2)
    again = contents(self.output)
    list_path = self.output / outputs.LIST
    first.pop(list_path), again.pop(list_path)
    self.assertEqual(first, again)
    # Other images beside them, and other options.
    self.add_photos("c.png")
    self.write(opacity=0.9, probabilities=True)
    self.assertTrue((self.output / "c.npy").exists())
    self.write()

  def test_the_list_of_files_is_that_of_sha256sum(self):
    self.add_photos("a.png")
    self.write()
    for line in (self.output / outputs.LIST).read_text().splitlines():
      digest, name = line.split("  ")
      data = (self.output / name).read_bytes()
      self.assertEqual(hashlib.sha256(data).hexdigest(), digest)

  def test_a_run_that_was_killed_is_not_in_the_way_of_the_next(self):
    self.add_photos("a.png", "b.png")
    self.write(opacity=0.1)
    # Killed between the line in the list and the file: the old one is there.
    folder = outputs.OutputFolder(self.output, [("a.png", None)])
    with self.assertRaises(errors.UserError):
      (self.output / "a.png").rename(self.folder / "old")
      (self.output / "a.png").mkdir()
      folder.write("a.png", b"new")
    (self.output / "a.png").rmdir()
    (self.folder / "old").rename(self.output / "a.png")
    self.write()

  @parameterized.parameters("folder", "link", "submission")
  def test_the_folder_of_the_images_is_refused(self, kind):
    self.add_photos("a.png")
    images = output = self.photos
    spec = SPEC
    if kind == "link":
      output = self.folder / "link"
      output.symlink_to(self.photos)
    elif kind == "submission":
      output = self.folder
      images = self.folder / "submission"
      self.photos.rename(images)
      spec = dataclasses.replace(SPEC, submission_ids=(7, 8, 9, 10))
    self.assert_refused(
        "--output.*is the folder of",
        images=images,
        output=output,
        spec=spec,
        submission=kind == "submission",
    )

  @parameterized.parameters(
      (("a.png", "a.jpg"), r"a\.png.*a\.jpg"),
      (("a.jpg", "a_overlay.jpg"), r"a_overlay\.jpg.*a\.jpg.*a_overlay\.png"),
  )
  def test_outputs_of_one_name_are_refused(self, names, message):
    self.add_photos(*names)
    self.assert_refused(message)

  @parameterized.parameters("a.png", "a_overlay.png", "a.npy")
  def test_files_of_others_are_left_alone(self, name):
    self.add_photos("a.jpg")
    self.output.mkdir()
    (self.output / name).write_bytes(b"work of weeks")
    self.assert_refused(f"{name}: is there and", probabilities=True)

  def test_an_edited_map_and_a_link_in_its_place_are_left_alone(self):
    self.add_photos("a.jpg")
    self.write()
    path = self.output / "a.png"
    Image.new("P", (9, 6)).save(path)
    self.assert_refused("a.png: is there and")
    path.unlink()
    path.symlink_to(self.photos / "a.jpg")
    self.assert_refused("a.png: is there and")

  def test_a_list_that_is_not_ours_is_left_alone(self):
    self.add_photos("a.jpg")
    self.output.mkdir()
    (self.output / outputs.LIST).write_text("my predictions\n")
    self.assert_refused("is not the list")

  def test_an_output_that_is_a_file_is_refused(self):
    self.add_photos("a.jpg")
    self.output.write_text("x")
    self.assert_refused("--output.*cannot be made")
    self.assert_refused("--output.*cannot be made", output=self.output / "x")

  @parameterized.parameters(float("nan"), -0.1, 1.5, float("inf"))
  def test_an_opacity_outside_of_0_to_1_is_refused(self, opacity):
    self.add_photos("a.jpg")
    self.assert_refused("--opacity", opacity=opacity)

  def test_a_turned_photograph_is_predicted_as_it_is_seen(self):
    [image] = test_segmentation.make_images((6, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = self.photos / "a.png"
    Image.fromarray(image).save(path, exif=exif)
    self.write()
    with Image.open(self.output / "a.png") as found:
      self.assertEqual(found.size, (6, 9))


class FoldersTest(FolderCase):

  def test_folders_within_the_folder_are_those_of_the_output(self):
    for name in ("a", "b/c", ".hidden", "old"):
      (self.photos / name).mkdir(parents=True)
    self.add_photos(
        "x.png", "a/x.jpg", "b/c/x.png", ".hidden/x.png", "old/x.png"
    )
    (self.photos / "old" / outputs.LIST).touch()
    self.assertEqual(self.write(), 3)
    for name in ("x.png", "a/x.png", "b/c/x_overlay.png"):
      self.assertTrue((self.output / name).exists(), name)
    # Into a folder of the folder, twice.
    for _ in range(2):
      self.assertEqual(self.write(output=self.photos / "out"), 3)

  def test_a_pattern(self):
    (self.photos / "a").mkdir()
    self.add_photos("x.png", "a/y.jpg", "a/z.png")
    (self.photos / "a" / "notes.txt").touch()
    for pattern, names in (
        ("*", ["x.png"]),
        ("**/*.png", ["a/z.png", "x.png"]),
        ("a/[xy].*", ["a/y.jpg"]),
    ):
      found = predictions.list_images(f"{self.photos}/{pattern}")
      self.assertEqual(found, [self.photos / name for name in names])
    with self.assertRaisesRegex(errors.UserError, r"no .*files match.*\*\.gif"):
      predictions.list_images(f"{self.photos}/*.gif")

  def test_probabilities_of_16_bits(self):
    self.add_photos("a.png")
    self.write(probabilities=True, probability_pngs=True)
    expected = np.load(self.output / "a.npy").astype(np.float32)
    planes = sorted((self.output / "a_probabilities").iterdir())
    self.assertEqual(planes[0].name, f"000_{SPEC.class_names[0]}.png")
    for i, path in enumerate(planes):
      with Image.open(path) as image:
        plane = np.array(image)
      self.assertEqual(plane.max() > 255, True)
      np.testing.assert_allclose(plane / 65535, expected[..., i], atol=1e-3)
    self.assertLen(planes, 4)


class ReadTest(FolderCase):

  @parameterized.named_parameters(
      ("fifo", os.mkfifo),
      ("dangling", lambda path: path.symlink_to("nowhere")),
      ("loop", lambda path: path.symlink_to(path)),
      ("text", lambda path: path.write_text("not an image")),
  )
  def test_what_is_no_image_is_named(self, make):
    self.add_photos("a.png")
    path = self.photos / "b.png"
    make(path)
    self.assert_refused("b.png")
    self.assert_refused("b.png", images=path)

  def test_a_damaged_image_is_named(self):
    self.add_photos("a.png")
    path = self.photos / "b.jpg"
    [image] = test_segmentation.make_images((200, 64))
    Image.fromarray(image).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with self.assertRaisesRegex(errors.UserError, str(path)):
      self.write()

  def test_a_name_that_is_no_utf_8(self):
    self.add_photos("a.png")
    name = os.fsdecode(b"caf\xe9")
    (self.photos / "a.png").rename(self.photos / f"{name}.png")
    self.write()
    self.write()
    self.assertTrue((self.output / f"{name}_overlay.png").exists())
    (self.photos / f"{name}.png").write_bytes(b"x")
    self.assert_refused(r"caf\\udce9.png")

  def test_what_stands_for_no_image_is_named(self):
    listed = self.folder / "list.txt"
    for text, message in (
        (b"a.png\n", "list.txt, line 1.*a.png"),
        (b"\n", "list.txt is empty"),
        (b"\xff\xfe\n", "list.txt: not UTF-8"),
        (b"a\0b.png\n", "list.txt, line 1"),
    ):
      listed.write_bytes(text)
      with self.assertRaisesRegex(errors.UserError, message):
        predictions.list_images(listed)
    fifo = self.folder / "fifo.txt"
    os.mkfifo(fifo)
    for path in (self.photos, fifo, self.folder / "nowhere"):
      with self.assertRaisesRegex(errors.UserError, str(path)):
        predictions._read_sizes(predictions.list_images(path))


if __name__ == "__main__":
  absltest.main()
