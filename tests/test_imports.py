"""Imports point one way, and importing depthsched loads no heavy package."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import depthsched

ROOT = Path(depthsched.__file__).parent

# From left to right: idea, plan, model, run, judge, show. A part may import what stands left of it or with it.
FLOW = [
    {"errors", "text"},
    {
        "deprecation",
        "placement",
        "files",
        "stats",
        "classes",
        "values",
        "bridge",
        "encoding",
        "display",
        "userfile",
    },
    {"settings", "blocks", "native", "signals", "parallel"},
    {"fingerprint"},
    {"schedule", "cost", "drafts", "damage"},
    {"schedules", "order", "ranker", "hookspecs", "profile"},
    {"compatibility"},
    {"plugins"},
    {"profiles"},
    {"depthplan"},
    {"planspec"},
    {"plans"},
    {"budget", "adapters", "models", "environment", "scaffold", "work"},
    {"runtime"},
    {"score", "conversation"},
    {"calibrate", "bench", "evaluate", "oracle"},
    {"report", "sweep", "testing", "rankers", "gallery", "demo", "studio"},
    {"cli", "__main__"},
]
PLACE = {name: level for level, names in enumerate(FLOW) for name in names}
NO_TORCH = {
    "errors",
    "text",
    "display",
    "files",
    "stats",
    "classes",
    "compatibility",
    "deprecation",
    "values",
    "userfile",
    "settings",
    "signals",
    "schedule",
    "cost",
    "drafts",
    "damage",
    "schedules",
    "order",
    "ranker",
    "rankers",
    "hookspecs",
    "profile",
    "profiles",
    "planspec",
    "plugins",
    "plans",
    "depthplan",
    "budget",
    "scaffold",
    "testing",
}
RUNS_A_MODEL = {"adapter_checks.py", "ranker_checks.py"}  # the parts of the conformance kit that is called with a model
HEAVY = ("torch", "transformers", "scipy", "matplotlib", "pandas", "hypothesis", "gradio")


def parts():
    return sorted({(p.relative_to(ROOT).parts[0].removesuffix(".py"), p) for p in ROOT.rglob("*.py")} - own())


def own():
    return {("__init__", ROOT / "__init__.py")}


def typing_only(tree: ast.Module) -> set[ast.AST]:
    """What only a type checker sees."""
    return {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }


def imports(path):
    """Every import of a module as an absolute dotted name, with whether it stands at the top level."""
    package = ["depthsched", *path.relative_to(ROOT).with_suffix("").parts][:-1]
    tree = ast.parse(path.read_text())
    top = set(tree.body)
    for node in set(ast.walk(tree)) - typing_only(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            names = [f"{module}.{a.name}" for a in node.names] if module == "depthsched" else [module]
            yield from ((name, node in top) for name in names)


def graph() -> dict[str, set[str]]:
    """Every module of the package with the modules of it that it imports, inside functions too."""
    names = {}
    for path in ROOT.rglob("*.py"):
        words = ["depthsched", *path.relative_to(ROOT).with_suffix("").parts]
        names[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name] = {module for module in _modules(path, package, names) if module != name}
    return found


def _modules(path: Path, package: str, names: Mapping[str, Path]) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in set(ast.walk(tree)) - typing_only(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            for alias in node.names:
                # `from . import plugins` is the module, `from .plugins import registry` the module it is in.
                whole = f"{module}.{alias.name}"
                yield from (found for found in [whole if whole in names else module] if found in names)


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """One way round for each import that leads back to where it stands."""
    found = []
    for start in edges:
        came_from = dict.fromkeys(edges[start], start)
        todo = list(came_from)
        while todo:
            at = todo.pop()
            for name in edges.get(at, set()) - came_from.keys():
                came_from[name] = at
                todo.append(name)
        if start in came_from:
            way = [came_from[start]]
            while way[-1] != start:
                way.append(came_from[way[-1]])
            found.append(way[::-1])
    return found


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circles(graph()) == []


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert sorted(map(sorted, circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}))) == [["b", "c"]] * 2


def test_every_part_has_its_place():
    assert {part for part, _ in parts()} - set(PLACE) == set()


@pytest.mark.parametrize(("part", "path"), parts(), ids=lambda value: value if isinstance(value, str) else value.stem)
def test_imports_point_one_way(part, path):
    for name, _ in imports(path):
        words = name.split(".")
        if words[0] != "depthsched" or len(words) == 1 or words[1] not in PLACE:
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
            assert not found & {"schedule", "schedules", "plans", "depthplan", "planspec", "order", "runtime"}, path


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


def test_adapters_are_imported_when_they_are_asked_for_and_torch_is_not() -> None:
    code = (
        "import sys\n"
        "from depthsched import plugins\n"
        "plugins.registry(), plugins.parse_schedule('d3')\n"
        "before = 'depthsched.adapters' in sys.modules\n"
        "assert list(plugins.adapter_classes())[0] == 'llama'\n"
        "print(before, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_importing_patches_nothing():
    code = (
        "import torch, transformers\n"
        "from transformers import GenerationMixin, LlamaForCausalLM, LlamaModel\n"
        "classes = (torch.nn.Module, torch.nn.ModuleList, GenerationMixin, LlamaForCausalLM, LlamaModel)\n"
        "before = [dict(vars(c)) for c in classes]\n"
        "import depthsched as ds\n"
        "[getattr(ds, name) for name in ds.__all__]\n"
        "import depthsched.runtime.attach, depthsched.runtime.generate, depthsched.models, depthsched.adapters\n"
        "assert before == [dict(vars(c)) for c in classes]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_public_name_is_there():
    for name in depthsched.__all__:
        assert getattr(depthsched, name) is not None
    with pytest.raises(AttributeError, match="nosuch"):
        _ = depthsched.nosuch
