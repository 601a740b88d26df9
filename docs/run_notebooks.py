"""Run the notebooks of the tutorials and write their outputs back.

    python docs/run_notebooks.py [NAME ...] [--short] [--out FOLDER] [--check]

A name is that of a file in ``docs/tutorials``, or a path; without names, all run. The outputs that the site shows
are of a full run; ``--short`` runs with the small sizes of the tests and does not write back. ``--out`` writes
somewhere else. ``--check`` says which notebooks have outputs that are not of their sources, and runs none.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from notebooks import TUTORIALS, about, notebooks, paths_in, read, run, source_digest


def main() -> int:
    """The command; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names in docs/tutorials, or paths")
    parser.add_argument("--short", action="store_true", help="small sizes; nothing is written back")
    parser.add_argument("--out", type=Path, help="write to this folder")
    parser.add_argument("--check", action="store_true", help="only say which outputs are old")
    options = parser.parse_args()
    paths = [_path(name) for name in options.names] or notebooks()
    if missing := [path.name for path in paths if not path.is_file()]:
        print(f"no notebook {', '.join(missing)}", file=sys.stderr)
        return 2
    if options.check:
        old = [path.name for path in paths if about(book := read(path)).get("digest") != source_digest(book)]
        said = [f"{name}: its outputs are not of its sources" for name in old]
        print("\n".join(said) or "all outputs are of their sources")
        return 1 if old else 0
    for path in paths:
        target = options.out / path.name if options.out else None if options.short else path
        _run(path, target, short=options.short)
    return 0


def _path(name: str) -> Path:
    """A name in the tutorials, or a path."""
    path = Path(name)
    return path if len(path.parts) > 1 else TUTORIALS / f"{name.removesuffix('.ipynb')}.ipynb"


def _run(path: Path, target: Path | None, *, short: bool) -> None:
    import nbformat

    began = time.monotonic()
    book = run(path, short=short)
    if found := paths_in(book):
        raise SystemExit(f"{path.name} shows paths of this machine: {', '.join(found[:3])}")
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.validate(book)
        nbformat.write(book, target)
    how = ("short, " if short else "") + ("nothing written" if target is None else "outputs written")
    print(f"{path.name}: {time.monotonic() - began:.0f} s, {how}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
