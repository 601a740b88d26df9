"""Imports point one way, and importing depthsched loads no heavy package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import depthsched

pytestmark = pytest.mark.quick

ROOT = Path(depthsched.__file__).parent

# From left to right: idea, plan, model, run, judge, show. A part may import what stands left of it or with it.
FLOW = [
    {"errors"},
    {"settings", "bridge"},
    {"schedule", "shape"},
    {"schedules", "order", "hookspecs", "profile"},
    {"plugins"},
    {"planspec"},
    {"plan"},
    {"budget", "adapters", "models", "scaffold"},
    {"runtime"},
    {"hf"},
    {"score"},
    {"calibrate", "bench", "evaluate"},
    {"report", "sweep", "testing"},
    {"cli", "__main__"},
]
PLACE = {name: level for level, names in enumerate(FLOW) for name in names}
# The manager registers the built-in adapters, and adapter_for asks the manager: both inside functions.
LATE = {("plugins", "adapters"), ("adapters", "plugins")}
NO_TORCH = {
    "errors",
    "settings",
    "schedule",
    "shape",
    "schedules",
    "order",
    "hookspecs",
    "profile",
    "planspec",
    "plugins",
    "plan",
    "budget",
    "scaffold",
    "testing",
}
RUNS_A_MODEL = {"adapter_checks.py"}  # the part of the conformance kit that is called with a model
HEAVY = ("torch", "transformers", "scipy", "matplotlib", "pandas", "hypothesis")


def parts():
    return sorted({(p.relative_to(ROOT).parts[0].removesuffix(".py"), p) for p in ROOT.rglob("*.py")} - own())


def own():
    return {("__init__", ROOT / "__init__.py")}


def imports(path):
    """Every import of a module as an absolute dotted name, with whether it stands at the top level."""
    package = ["depthsched", *path.relative_to(ROOT).with_suffix("").parts][:-1]
    tree = ast.parse(path.read_text())
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    top = set(tree.body)
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            names = [f"{module}.{a.name}" for a in node.names] if module == "depthsched" else [module]
            yield from ((name, node in top) for name in names)


def test_every_part_has_its_place():
    assert {part for part, _ in parts()} - set(PLACE) == set()


@pytest.mark.parametrize(("part", "path"), parts(), ids=lambda value: value if isinstance(value, str) else value.stem)
def test_imports_point_one_way(part, path):
    for name, top in imports(path):
        words = name.split(".")
        if words[0] != "depthsched" or len(words) == 1 or words[1] not in PLACE:
            continue
        if not top and (part, words[1]) in LATE:
            continue
        assert PLACE[words[1]] <= PLACE[part], f"{path.name} imports {name}, which stands right of it"


@pytest.mark.parametrize(
    ("part", "path"), [p for p in parts() if p[0] in NO_TORCH], ids=lambda v: getattr(v, "stem", v)
)
def test_schedules_and_plans_know_no_torch_and_no_model(part, path):
    for name, top in imports(path):
        if top or path.name not in RUNS_A_MODEL:
            assert name.split(".")[0] not in ("torch", "transformers"), f"{path.name} imports {name}"
        if part != "testing":  # Hypothesis is what the conformance kit is made of
            assert not (top and name.split(".")[0] in HEAVY), f"{path.name} imports {name} when it is imported"


def test_adapters_know_no_schedule():
    for part, path in parts():
        if part == "adapters":
            found = {name.split(".")[1] for name, _ in imports(path) if name.startswith("depthsched.")}
            assert not found & {"schedule", "schedules", "plan", "order", "runtime"}, path


def test_files_stay_small():
    assert len((ROOT / "__init__.py").read_text().splitlines()) < 80
    assert [str(p) for p in ROOT.rglob("*.py") if len(p.read_text().splitlines()) > 300] == []


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, depthsched as ds\n"
        "plan = ds.plan('d3:alpha=0.99', num_layers=30, horizon=50)\n"
        "plan.mean_depth, plan.to_text(), plan.digest\n"
        f"print([m for m in {HEAVY} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_patches_nothing():
    code = (
        "import torch, transformers\n"
        "from transformers import GenerationMixin, LlamaForCausalLM, LlamaModel\n"
        "classes = (torch.nn.Module, torch.nn.ModuleList, GenerationMixin, LlamaForCausalLM, LlamaModel)\n"
        "before = [dict(vars(c)) for c in classes]\n"
        "import depthsched as ds\n"
        "[getattr(ds, name) for name in ds.__all__]\n"
        "import depthsched.hf, depthsched.runtime.run, depthsched.models, depthsched.adapters\n"
        "assert before == [dict(vars(c)) for c in classes]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_public_name_is_there():
    for name in depthsched.__all__:
        assert getattr(depthsched, name) is not None
    with pytest.raises(AttributeError, match="nosuch"):
        _ = depthsched.nosuch
