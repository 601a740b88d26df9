"""A profile's files: what 0.1.0 wrote loads, what is written now has the same form, and damage is refused."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.bridge import Bridge
from depthsched.errors import ProfileError
from depthsched.profile import ModelIdentity

from ..tiny import LAYERS

OLD = Path(__file__).parent / "profile-0.1.0"
FILES = ("profile.json", "bridges.safetensors")


@pytest.fixture
def old(tmp_path: Path) -> ds.Profile:
    return ds.Profile.load(shutil.copytree(OLD, tmp_path / "old"))


def text(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "profile.json").read_text())
    return content


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what ``profile.json`` says, with the checksum that belongs to it."""
    content = text(folder)
    del content["checksum"]
    change(content)
    content["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / "profile.json").write_text(json.dumps(content))


def test_a_profile_of_0_1_0_says_what_it_said(old: ds.Profile) -> None:
    assert (old.num_layers, old.drop_order, old.depths) == (4, (3, 1), (2, 3))
    assert (old.schedule, old.seed, old.digest) == ("constant:depth=3", 1, "9db0e6e412af5ae0")
    assert [old.bridge_params(depth) for depth in (1, 2, 3, 4)] == [0, 144, 72, 0]
    assert old.bridges([2, 4])[2].keys() == {1, 3}
    assert old.options["corrections"] == 1
    assert old.content["evidence"] == old.evidence == text(OLD)["evidence"]
    plan = ds.plan("constant:depth=2", num_layers=4, horizon=8, profile=old)
    assert plan.drop_order == (3, 1)


def test_saved_again_it_is_the_same_bytes(old: ds.Profile, tmp_path: Path) -> None:
    for saved in (
        old.save(old.folder),
        old.save(tmp_path / "new", old.bridges(old.depths)),
        old.save(tmp_path / "other"),
    ):
        for name in FILES:
            assert (saved.folder / name).read_bytes() == (OLD / name).read_bytes(), (saved.folder, name)


def test_what_is_written_now_has_the_keys_of_0_1_0(profile: ds.Profile) -> None:
    assert [key for key in text(profile.folder) if key != "damage"] == list(text(OLD))
    assert set(profile.evidence) - {"corrections"} == set(text(OLD)["evidence"])
    content = text(profile.folder)
    checksum = content.pop("checksum")
    assert checksum == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert content == profile.to_json()


def test_tensors_are_written_only_when_they_change(old: ds.Profile) -> None:
    tensors = old.folder / "bridges.safetensors"
    before = tensors.stat()
    changed = old.replace(schedule="d3:alpha=0.9", evidence={**old.evidence, "why": (1, 2)}).save(old.folder)
    assert tensors.stat().st_ino == before.st_ino
    assert (changed.schedule, changed.evidence["why"], changed.digest) == ("d3:alpha=0.9", [1, 2], old.digest)
    assert (old.schedule, ds.Profile.load(old.folder).schedule) == ("constant:depth=3", "d3:alpha=0.9")
    other = {2: {3: Bridge(torch.eye(8), torch.ones(8))}}
    rewritten = old.save(old.folder, other)
    assert (rewritten.depths, rewritten.digest != old.digest) == ((2,), True)
    assert torch.equal(rewritten.bridges([2])[2][3].bias, torch.ones(8))


def test_a_profile_without_bridges_can_be_saved(tmp_path: Path) -> None:
    model = ModelIdentity("any", 4, 8, "0" * 16, (0.5, 0.25))
    saved = ds.Profile(model, (2, 1)).save(tmp_path)
    assert (saved.depths, saved.bridges(range(5)), saved.model) == ((), {}, model)
    assert ds.plan("constant:depth=3", num_layers=4, profile=saved).keep(3) == (0, 1, 3)


@pytest.mark.parametrize("damage", ["truncate", "edit", "tensors", "missing", "cut", "empty", "list"])
def test_a_damaged_profile_is_refused(profile: ds.Profile, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(profile.folder, tmp_path / "copy"))
    file, tensors = folder / "profile.json", folder / "bridges.safetensors"
    ds.Profile.load(folder)  # what was whole a moment ago is looked at again
    if damage == "truncate":
        file.write_text(file.read_text()[:-100])
    elif damage == "edit":
        content = text(folder)
        content["drop_order"] = content["drop_order"][::-1]
        file.write_text(json.dumps(content))
    elif damage == "tensors":
        data = bytearray(tensors.read_bytes())
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif damage == "missing":
        tensors.unlink()
    elif damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-8])
    else:
        file.write_text({"empty": "", "list": "[]"}[damage])
    reason = {"edit": "edited", "tensors": "edited", "missing": "missing"}
    with pytest.raises(ProfileError, match=reason.get(damage, "truncated")):
        ds.plan("constant:depth=5", num_layers=LAYERS, profile=folder)


@pytest.mark.parametrize("key", ["model", "drop_order", "bridges", "tensors_sha256"])
@pytest.mark.parametrize("value", [None, 7, "absent"])
def test_a_profile_with_a_good_checksum_and_bad_content_is_refused(old: ds.Profile, key: str, value: Any) -> None:
    rewrite(old.folder, lambda content: content.pop(key) if value == "absent" else content.update({key: value}))
    with pytest.raises(ProfileError):
        ds.Profile.load(old.folder)


def test_another_format_is_refused_by_its_number(old: ds.Profile) -> None:
    rewrite(old.folder, lambda content: content.update(format=2))
    with pytest.raises(ProfileError, match="format 2, this version reads 1"):
        ds.Profile.load(old.folder)


def test_loading_reads_no_torch() -> None:
    code = f"import sys, depthsched as ds; ds.Profile.load({str(OLD)!r}).digest; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
