"""Imports go downstairs, and TensorFlow stays outside."""

import ast
import pathlib
import subprocess
import sys

from absl.testing import absltest

import ctxseg_jax

# From the ground up; what is no folder is a file beside them.
FLOORS = [
    {"bounds", "errors"},
    {"files", "memory", "pickles", "settings"},
    {"models", "losses", "data"},
    {"evaluation", "pretrained"},
    {"training"},
    {"experiment"},
    {"commands", "describe"},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
ROOT = pathlib.Path(ctxseg_jax.__file__).parent


def imported_parts(path: pathlib.Path) -> set[str]:
  """Returns the names right under `ctxseg_jax` that a file imports."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return {n.split(".")[1] for n in names if n.startswith("ctxseg_jax.")}


class LayeringTest(absltest.TestCase):

  def test_imports_only_go_downstairs(self):
    for path in sorted(ROOT.rglob("*.py")):
      part = path.relative_to(ROOT).with_suffix("").parts[0]
      if part == "__init__":
        continue
      self.assertIn(part, FLOOR, f"{path} is on no floor")
      for target in imported_parts(path) - {part}:
        self.assertLess(
            FLOOR[target], FLOOR[part], f"{path.name} imports {target}"
        )

  def test_a_head_imports_no_other_head(self):
    for package in ("heads", "backbones"):
      names = {p.stem for p in (ROOT / package).glob("*.py")}
      for path in (ROOT / package).glob("*.py"):
        if path.stem == "__init__":
          continue
        for node in ast.walk(ast.parse(path.read_text())):
          if isinstance(node, ast.ImportFrom) and node.module == (
              f"ctxseg_jax.{package}"
          ):
            self.assertEmpty({a.name for a in node.names} & names, path.name)

  def test_configs_import_nothing_of_the_package(self):
    for path in (ROOT.parent / "configs").rglob("*.py"):
      self.assertEmpty(imported_parts(path), path.name)
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
