"""``--profile`` means the same in every command that takes plans, and a bad one is refused by all of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.bridge import Bridge
from depthsched.profile import ModelIdentity

from ..commands import Result
from ..tiny import make_tiny

Cli = Callable[..., Result]

LAYERS, HIDDEN = 8, 32
DROPS = (3, 4, 5)
DAMAGE = {
    "absent": "no profile in",
    "truncated": "truncated",
    "edited": "was edited",
    "tensors": "was edited",
    "foreign": "weights differ",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> Path:
    """A tiny model in a folder, a file of prompts and a profile ``p`` for it, its bridges drawn at random."""
    path = tmp_path_factory.mktemp("home")
    model = make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer))
    model.save_pretrained(path / "model")
    small_tokenizer.save_pretrained(path / "model")
    (path / "prompts.jsonl").write_text(json.dumps({"prompt": "How much is 2 plus 3?", "completion": " 2 and 3 is 5"}))
    save(path / "p", model)
    return path


def save(folder: Path, model: Any) -> None:
    g = torch.Generator().manual_seed(0)

    def make() -> Bridge:
        return Bridge(torch.randn(HIDDEN, HIDDEN, generator=g) * 0.1, torch.randn(HIDDEN, generator=g))

    bridges = {LAYERS - n: {DROPS[0]: make(), LAYERS - 1: make()} for n in (1, 2, 3)}
    ds.Profile(ModelIdentity.of(model, "tiny"), DROPS).save(folder, bridges)


def damaged(home: Path, tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / "bad"
    if kind == "absent":
        return folder
    model = make_tiny("llama", "sdpa", vocab_size=ds.load_model(str(home / "model"))[0].config.vocab_size)
    if kind == "foreign":
        with torch.no_grad():
            model.model.layers[2].mlp.up_proj.weight.mul_(1.02)
    save(folder, model)
    text, tensors = folder / "profile.json", folder / "bridges.safetensors"
    if kind == "truncated":
        text.write_text(text.read_text()[:-50])
    elif kind == "edited":
        text.write_text(text.read_text().replace('"seed"', '"seeds"').replace('"tiny"', '"large"'))
    elif kind == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x07")
    return folder


def command(name: str, home: Path, schedule: str) -> list[Any]:
    model = ["--model", home / "model"]
    words: dict[str, list[Any]] = {
        "generate": ["generate", "Hello", *model, "-n", 4, "--dtype", "float32", "-s", schedule],
        "bench": [
            *["bench", *model, "--plans", schedule, "--backends", "eager", "--baseline", "none"],
            *["--tokens", 4, "--repeats", 1, "--dtype", "float32"],
        ],
        "show": ["show", schedule],
        "score": ["score", *model, "--prompts", home / "prompts.jsonl", "-n", 8, "-s", schedule],
    }
    return words[name]


COMMANDS = ["generate", "bench", "show", "score"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_option_is_the_default_of_every_plan(cli: Cli, home: Path, name: str) -> None:
    by_option = cli(*command(name, home, "constant:depth=5"), "--profile", home / "p", "--json")
    by_spec = cli(*command(name, home, f"constant:depth=5+profile={home / 'p'}"), "--json")
    assert (by_option.code, by_spec.code) == (0, 0), by_option.err + by_spec.err
    for key in ("tokens", "order", "drop_order", "kl", "bytes_speedup"):
        assert by_option.json().get(key) == by_spec.json().get(key), key
    without = cli(*command(name, home, "constant:depth=5@list:layers=3+4+5"), "--profile", home / "p", "--json").json()
    if name == "bench":
        rows = [next(r for r in found["rows"] if r["plan"] != "full") for found in (by_option.json(), without)]
        assert rows[0]["theoretical_bytes"] < rows[1]["theoretical_bytes"]
    elif name == "show":
        assert by_option.json()["num_layers"] == LAYERS
        assert (by_option.json()["profile"], without["profile"]) == (str(home / "p"), None)
    else:
        assert by_option.json()["bytes_speedup"] < without["bytes_speedup"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, k) for n in COMMANDS for k in DAMAGE if (n, k) != ("show", "foreign")],  # show has no model to compare with
)
def test_a_bad_profile_is_refused_with_its_reason(cli: Cli, home: Path, tmp_path: Path, name: str, kind: str) -> None:
    done = cli(*command(name, home, "constant:depth=5"), "--profile", damaged(home, tmp_path, kind))
    assert done.code == 2
    assert DAMAGE[kind] in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""


def test_a_bad_default_is_refused_also_where_each_plan_has_its_own_order(cli: Cli) -> None:
    done = cli("show", "constant:depth=5@early-exit", "--profile", "absent")
    assert done.code == 2
    assert "no profile in absent" in done.err


def test_what_does_not_fit_the_bridges_is_refused(cli: Cli, home: Path) -> None:
    for order in ("middle-out", "ranked:layers=2+3"):
        done = cli("show", "constant:depth=6", "--profile", home / "p", "--order", order)
        assert done.code == 2
        assert "fit its own order" in done.err
    assert "the profile is empty" in cli("show", "constant:depth=6+profile=").err


def test_the_oracle_refuses_a_profile_that_no_order_uses(cli: Cli, home: Path) -> None:
    words = ["oracle", "--model", home / "model", "--prompts", home / "prompts.jsonl", "--profile", home / "p"]
    words += ["--plans", "none", "--kinds", "one-step", "--min-depth", 6]
    done = cli(*words, "--order", "middle-out;early-exit")
    assert (done.code, done.out) == (2, "")
    assert "would change nothing: it is for order ranked" in done.err
    assert cli(*words, "--order", "middle-out;ranked").code == 0


def test_show_solves_a_mean_depth_on_a_profile(cli: Cli, home: Path) -> None:
    found = cli("show", "d3", "--mean-depth", 6.5, "--profile", home / "p", "-n", 64, "--json").json()
    assert found["profile"] == str(home / "p")
    assert found["mean_depth"] == pytest.approx(6.5, abs=0.1)


def test_generate_and_attach_take_a_profile(home: Path) -> None:
    model, tokenizer = ds.load_model(str(home / "model"), dtype="float32")
    inputs = tokenizer("Hello", return_tensors="pt")
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    plain = ds.generate(model, inputs, "constant:depth=5@list:layers=3+4+5", **options)
    bridged = ds.generate(model, inputs, "constant:depth=5", profile=home / "p", **options)
    assert bridged.tokens.tolist() != plain.tokens.tolist()
    with ds.attach(model, "constant:depth=5", profile=ds.Profile.load(home / "p")):
        attached = model.generate(**inputs, **options)
    assert attached[:, inputs["input_ids"].shape[1] :].tolist() == bridged.tokens.tolist()
    with pytest.raises(ds.errors.PlanError, match="resolved already"):
        ds.generate(model, inputs, plain.plan, profile=home / "p")
