"""Imports go downstairs, and TensorFlow stays outside."""

import ast
import graphlib
import pathlib
import subprocess
import sys

from absl.testing import absltest

import ctxseg_jax

# From the ground up. Any other file beside the folders is on the ground.
FLOORS = [
    set(),
    {"models", "losses", "data"},
    {"evaluation", "pretrained"},
    {"training"},
    {"experiment"},
    {"commands", "deployment", "describe", "options", "planning", "__init__"},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
ROOT = pathlib.Path(ctxseg_jax.__file__).parent


def imported(path: pathlib.Path) -> set[str]:
  """Returns the modules below `ctxseg_jax` that a file imports, dotted."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return {
      name.removeprefix("ctxseg_jax.")
      for name in names
      if name.startswith("ctxseg_jax.")
  }


def is_command(path: pathlib.Path) -> bool:
  """Returns whether a module is run by `python -m`, above all floors."""
  return '__name__ == "__main__"' in path.read_text()


class LayeringTest(absltest.TestCase):

  def test_imports_only_go_downstairs(self):
    for path in sorted(ROOT.rglob("*.py")):
      part = path.relative_to(ROOT).with_suffix("").parts[0]
      if is_command(path):
        continue
      for target in {name.split(".")[0] for name in imported(path)} - {part}:
        below = FLOOR.get(target, 0) < FLOOR.get(part, 0)
        both_ground = target not in FLOOR and part not in FLOOR
        self.assertTrue(below or both_ground, f"{path.name} imports {target}")

  def test_nobody_imports_a_command(self):
    commands = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in ROOT.rglob("*.py")
        if is_command(path)
    }
    self.assertContainsSubset({"describe", "data.check"}, commands)
    for path in ROOT.rglob("*.py"):
      self.assertEmpty(imported(path) & commands, path.name)

  def test_no_folder_has_a_circle(self):
    for folder in {path.parent for path in ROOT.rglob("*.py")} - {ROOT}:
      prefix = ".".join(folder.relative_to(ROOT).parts)
      graph = {
          path.stem: {
              name.removeprefix(f"{prefix}.").split(".")[0]
              for name in imported(path)
              if name.startswith(f"{prefix}.")
          }
          for path in folder.glob("*.py")
          if path.stem != "__init__"
      }
      list(graphlib.TopologicalSorter(graph).static_order())

  def test_a_head_imports_no_other_head(self):
    for package in ("heads", "backbones"):
      names = {p.stem for p in (ROOT / "models" / package).glob("*.py")}
      for path in (ROOT / "models" / package).glob("*.py"):
        if path.stem == "__init__":
          continue
        for node in ast.walk(ast.parse(path.read_text())):
          if isinstance(node, ast.ImportFrom) and node.module == (
              f"ctxseg_jax.models.{package}"
          ):
            self.assertEmpty({a.name for a in node.names} & names, path.name)

  def test_configs_import_nothing_of_the_package(self):
    for path in (ROOT.parent / "configs").rglob("*.py"):
      self.assertEmpty(imported(path), path.name)
      self.assertNotIn("import ctxseg_jax", path.read_text())

  def test_data_does_not_import_jax_itself(self):
    for path in (ROOT / "data").rglob("*.py"):
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
          self.assertNotIn("jax", [a.name for a in node.names], path.name)

  def test_importing_everything_does_not_import_tensorflow(self):
    modules = [
        ".".join(("ctxseg_jax", *p.relative_to(ROOT).with_suffix("").parts))
        for p in sorted(ROOT.rglob("*.py"))
        if p.stem != "__init__"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "  importlib.import_module(name)\n"
        "found = [m for m in ('tensorflow', 'torch') if m in sys.modules]\n"
        "sys.exit(f'imported: {found}' if found else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    self.assertEqual(done.returncode, 0, done.stderr[-2000:])


if __name__ == "__main__":
  absltest.main()
