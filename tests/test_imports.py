"""Imports point one way, and importing the package is light and patches nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import depthsched

ROOT = Path(depthsched.__file__).parent
HEAVY = ("torch", "transformers", "scipy", "matplotlib", "pandas", "hypothesis")

# Left to right in the data flow: a part may import what stands before it, and itself.
FLOW = [
    {"errors"},
    {"settings", "shape", "bridge"},
    {"schedule"},
    {"schedules", "order", "profile"},
    {"hookspecs"},
    {"plugins"},
    {"planspec"},
    {"plan"},
    {"budget", "adapters"},
    {"runtime"},
    {"hf", "models"},
    {"score"},
    {"calibrate"},
    {"testing", "report"},
    {"cli"},
]
# One place reaches forward on purpose: the manager imports the built-in adapters when a model is first used.
LAZY = {("plugins", "adapters"), ("adapters", "plugins")}
KNOWS_NO_TORCH = {
    "errors",
    "settings",
    "schedule",
    "schedules",
    "order",
    "plan",
    "planspec",
    "profile",
    "shape",
    "plugins",
    "budget",
    "testing",
}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path):
    """Names of the parts of depthsched, and of other packages, that a file imports."""
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (("outside", alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield "outside", (node.module or "").split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            yield from (("inside", name) for name in names)


FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.name not in ("__init__.py", "__main__.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    rank = {part: i for i, parts in enumerate(FLOW) for part in parts}
    part = part_of(path)
    assert part in rank, f"add {part!r} to the flow"
    for where, name in imports(path):
        if where == "inside" and name != part and (part, name) not in LAZY:
            assert rank[name] < rank[part], f"{part} imports {name}, which stands to its right or beside it"
        if where == "outside" and part in KNOWS_NO_TORCH:
            assert name not in ("torch", "transformers"), f"{part} must know no model"


def test_the_package_stays_small():
    assert len((ROOT / "__init__.py").read_text().splitlines()) < 80
    too_long = [str(p) for p in ROOT.rglob("*.py") if len(p.read_text().splitlines()) > 300]
    assert not too_long


def test_importing_is_light():
    code = f"import sys, depthsched; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in depthsched.__all__:
        assert getattr(depthsched, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = depthsched.nope
