"""Profiles of a hub: two files of one commit are read, whatever else lies there, and damage is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import depthsched as ds

from ..hub_server import Hub, Repo, serve
from ..plugins.distributions import command
from ..tiny import make_tiny

OLD = Path(__file__).parents[1] / "calibrate" / "profile-0.1.0"
NAMES = ("bridges.safetensors", "profile.json")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as made:
        yield made


@pytest.fixture
def files() -> dict[str, bytes]:
    return {name: (OLD / name).read_bytes() for name in NAMES}


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """The command line in a process that knows this hub and has an empty cache."""

    def call(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_own"}
        return command(*map(str, args), **{**own, **variables})

    return call


def show(run: Run, place: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run("show", "constant:depth=2", "--profile", place, "--json", **variables)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_hub_id_is_pinned_to_its_commit(hub: Hub, run: Run, files: dict[str, bytes]) -> None:
    repo = hub.repos["ann/tiny"] = Repo()
    first = repo.commit(files)
    done = show(run, "ann/tiny")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    plan = json.loads(done.stdout)
    assert (plan["profile"], plan["drop_order"]) == (f"ann/tiny@{first}", [3, 1])
    assert {path.rpartition("/")[2] for _, path in hub.asked if "/resolve/" in path} == set(NAMES)
    assert all(f"/resolve/{first}/" in path for _, path in hub.asked if "/resolve/" in path)

    second = repo.commit({**files, "README.md": b"again"})  # the branch moves on, the pin does not
    assert json.loads(show(run, "ann/tiny").stdout)["profile"] == f"ann/tiny@{second}"
    asked = len(hub.asked)
    pinned = show(run, f"ann/tiny@{first}", HF_HUB_OFFLINE="1")
    assert json.loads(pinned.stdout) == plan
    assert len(hub.asked) == asked
    refused(show(run, "ann/tiny", HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE is set", "user/name@COMMIT")


def test_whatever_else_lies_there_is_neither_read_nor_run(
    hub: Hub, run: Run, files: dict[str, bytes], tmp_path: Path
) -> None:
    class Mark:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    code = f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()".encode()
    bad = {"bridges.pt": pickle.dumps(Mark()), "profile.py": code, "depthsched.py": code, "../../up.txt": b"x"}
    hub.repos["ann/bad"] = Repo()
    hub.repos["ann/bad"].commit({**files, **bad, "config.json": b"{}"})
    assert show(run, "ann/bad").returncode == 0
    assert not (tmp_path / "ran").exists()
    kept = {path.name for path in (tmp_path / "hf").rglob("snapshots/*/*")}
    assert kept == set(NAMES)
    assert list(tmp_path.rglob("up.txt")) == []


def edited(files: dict[str, bytes]) -> dict[str, bytes]:
    return {**files, "profile.json": files["profile.json"].replace(b'"seed": 1', b'"seed": 2')}


def cut(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {**files, name: files[name][:-40]}


def swapped(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle under the name of the tensors, with size and checksum that belong to it."""
    content = json.loads(files["profile.json"])
    del content["checksum"]
    data = pickle.dumps({"weight": [1.0]})
    content |= {"tensors_bytes": len(data), "tensors_sha256": hashlib.sha256(data).hexdigest()}
    whole = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"bridges.safetensors": data, "profile.json": json.dumps({**content, "checksum": whole}).encode()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edited, ["was edited"]),
        (lambda files: cut(files, "profile.json"), ["truncated"]),
        (lambda files: cut(files, "bridges.safetensors"), ["truncated"]),
        (lambda files: {"profile.json": files["profile.json"]}, ["has no", "bridges.safetensors"]),
        (lambda files: {"profile.pkl": pickle.dumps(1)}, ["has no profile.json"]),
    ],
    ids=["edited", "cut json", "cut tensors", "no tensors", "no profile"],
)
def test_a_damaged_repository_is_refused(
    hub: Hub, run: Run, files: dict[str, bytes], change: Callable[[Any], dict[str, bytes]], words: list[str]
) -> None:
    hub.repos["ann/tiny"] = Repo()
    hub.repos["ann/tiny"].commit(change(files))
    refused(show(run, "ann/tiny"), *words)


def test_a_pickle_under_the_name_of_the_tensors_is_refused_where_they_are_read(
    hub: Hub, run: Run, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.repos["ann/tiny"] = Repo()
    hub.repos["ann/tiny"].commit(swapped(files))
    refused(run("profile", "pack", "ann/tiny", tmp_path / "out"), "bridges.safetensors", "not a safetensors file")


def test_what_the_hub_does_not_give_is_named(hub: Hub, run: Run, files: dict[str, bytes]) -> None:
    repo = hub.repos["ann/tiny"] = Repo()
    sha = repo.commit(files)
    refused(show(run, "ann/other"), "no profile in ann/other", hub.url, "no such repository")
    refused(show(run, "ann/tiny@v9"), "no such revision")
    hub.short = "bridges.safetensors"
    refused(show(run, "ann/tiny"), "Consistency check failed")
    hub.short, hub.lies = "", "f" * 40
    refused(show(run, f"ann/tiny@{sha}"), "f" * 40, sha)
    refused(show(run, "ann/tiny", HF_ENDPOINT="http://127.0.0.1:9"), "http://127.0.0.1:9 cannot be used")


def test_a_profile_for_another_model_is_refused(
    hub: Hub, run: Run, files: dict[str, bytes], tmp_path: Path, small_tokenizer: Any
) -> None:
    hub.repos["ann/tiny"] = Repo()
    sha = hub.repos["ann/tiny"].commit(files)
    make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer), num_hidden_layers=4).save_pretrained(tmp_path / "m")
    small_tokenizer.save_pretrained(tmp_path / "m")
    done = run("generate", "Hi", "--model", tmp_path / "m", "-s", "constant:depth=3", "-p", "ann/tiny", "-n", 4)
    refused(done, f"the profile in ann/tiny@{sha} is for model 'tiny', whose configuration differs")


@pytest.mark.parametrize("lfs", [False, True])
def test_a_pushed_profile_comes_back(hub: Hub, run: Run, files: dict[str, bytes], tmp_path: Path, lfs: bool) -> None:
    hub.lfs = lfs
    folder = shutil.copytree(OLD, tmp_path / "mine")
    (folder / "secret.txt").write_text("stays here")
    done = run("profile", "push", folder, "ann/new", "--json", HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    ((sha, sent),) = hub.repos["ann/new"].commits.items()
    assert said == {"profile": f"ann/new@{sha}", "private": True}
    assert set(sent) == {*NAMES, "README.md"}
    assert {name: sent[name] for name in NAMES} == files
    assert bool(hub.objects) is lfs
    assert "--profile ann/new" in sent["README.md"].decode()
    assert json.loads(show(run, "ann/new").stdout)["profile"] == said["profile"]


def test_a_public_repository_is_pushed_to_only_when_asked(hub: Hub, run: Run) -> None:
    hub.repos["ann/open"] = Repo()
    refused(run("profile", "push", OLD, "ann/open"), "is public already", "--public")
    assert hub.repos["ann/open"].commits == {}
    assert json.loads(run("profile", "push", OLD, "ann/open", "--public", "--json").stdout)["private"] is False
    refused(run("profile", "push", OLD, "no-slash"), "not a hub id")
    refused(run("profile", "push", OLD, "ann/x", HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE")


def test_python_takes_the_same_texts(hub: Hub, files: dict[str, bytes]) -> None:
    with pytest.raises(ds.errors.ProfileError, match="HF_HUB_OFFLINE is set"):  # as the tests themselves are
        ds.plan("constant:depth=2", num_layers=4, profile="ann/never-downloaded")
