"""Real tiny distributions in a folder, and processes that see them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def distribution(folder: Path, name: str, code: str, *, version: str = "1.0", needs: str = "") -> str:
    """Put a distribution with one module and its entry point into ``folder``, as pip leaves one behind."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(dedent(code))
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
    (info / "entry_points.txt").write_text(f"[depthsched]\n{module} = {module}\n")
    return name


def schedule_code(class_name: str, name: str) -> str:
    """A plug-in module with one schedule of constant depth 3."""
    return dedent(f"""
        from dataclasses import dataclass
        from typing import ClassVar
        import depthsched as ds

        @dataclass(frozen=True)
        class {class_name}(ds.DepthSchedule):
            '''Three layers.'''
            name: ClassVar[str] = "{name}"
            def depth(self, step, num_layers):
                return 3

        @ds.hookimpl
        def register_schedules(register):
            register({class_name})
        """)


def environment(*folders: Path, **variables: str) -> dict[str, str]:
    """This process' environment with ``folders`` in front of the module path."""
    path = os.pathsep.join([*map(str, folders), str(ROOT / "src")])
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DEPTHSCHED_")}
    return clean | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "300"} | variables


def python(code: str, *folders: Path, **variables: str) -> Any:
    """Run code in a new process that sees the distributions; the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env=environment(*folders, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def command(*args: str, folders: tuple[Path, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a new process that sees the distributions."""
    return subprocess.run(
        [sys.executable, "-m", "depthsched", *args],
        env=environment(*folders, **variables),
        capture_output=True,
        text=True,
        timeout=240,
    )
