"""What the commands print, on the real model where one is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import depthsched as ds

SIX = ["text", "tokens", "depths", "mean_depth", "layer_speedup", "bytes_speedup", "tokens_per_second"]
PROMISED = [*SIX, "prefill_seconds", "decode_seconds", "backend", "schedule", "order", "model", "versions"]


def test_list_json(cli):
    rows = cli("list", "--json").json()["rows"]
    names = {(r["kind"], r["name"]) for r in rows}
    assert names >= {("schedule", "d3"), ("order", "middle-out"), ("ranker", "block"), ("adapter", "llama")}
    for row in rows:
        assert set(row) == {"kind", "name", "plugin", "version", "summary"}
        assert all(row.values())


def test_show_json_is_a_plan_that_reads_back(cli):
    data = cli("show", "d3:alpha=0.99,start=8", "--layers", 30, "--tokens", 64, "--json").json()
    plan = ds.plan("d3:alpha=0.99,start=8", num_layers=30, horizon=64)
    assert ds.DepthPlan.from_json(data) == plan
    assert data["mean_depth"] == pytest.approx(plan.mean_depth)


def test_show_solves_a_budget(cli):
    data = cli("show", "d3", "--layers", 30, "--tokens", 256, "--mean-depth", 20, "--json").json()
    assert data["mean_depth"] == pytest.approx(20, abs=0.05)


def test_show_writes_a_png_that_an_image_library_opens(cli, tmp_path):
    from matplotlib.image import imread

    assert cli("show", "d3", "--png", tmp_path / "curve.png").code == 0
    height, width, _ = imread(tmp_path / "curve.png").shape
    assert height > 200
    assert width > 400


def test_show_for_people_says_when_it_clips(cli):
    out = cli("show", "constant:depth=2", "--layers", 12).out
    assert "keeps 4 core layers" in out


def test_generate_json(cli):
    result = cli("generate", "Why is the sky blue?", "-n", 8, "-s", "d3:alpha=0.9", "--compare", "--json").json()
    assert set(PROMISED) <= set(result)
    assert set(SIX) <= set(result["full"])
    assert len(result["depths"]) == len(result["tokens"]) == result["num_tokens"] == 8
    assert result["depths"] == [30, 27, 24, 21, 19, 17, 15, 14]
    assert result["full"]["depths"] == [30] * 8
    assert 0 <= result["equal_prefix_share"] <= 1
    assert result["mean_depth"] == pytest.approx(sum(result["depths"][1:]) / 7)
    assert result["layer_speedup"] == pytest.approx(30 * 7 / sum(result["depths"][1:]))


def test_generate_full_depth_is_the_text_of_transformers(cli, smollm2):
    model, tokenizer = smollm2
    turns = [{"role": "user", "content": "Name three colours."}]
    inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    result = cli("generate", "Name three colours.", "-s", "full", "-n", 12, "--json").json()
    assert result["tokens"] == expected.tolist()


def test_seed_decides_the_sample(cli):
    def sample(seed):
        args = ["generate", "Once", "--raw", "-n", 8, "-t", 1.5, "--top-p", 0.95, "--seed", seed, "--json"]
        return cli(*args).json()["tokens"]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_raw_leaves_the_prompt_alone(cli, smollm2):
    tokens = smollm2[1]("Once upon a time")["input_ids"]
    result = cli("generate", "Once upon a time", "--raw", "-n", 2, "--json").json()
    assert result["prompt_tokens"] == len(tokens)


def test_prompt_from_file_and_stdin_agree(cli, tmp_path, monkeypatch):
    import io

    (tmp_path / "prompt.txt").write_text("Say yes.")
    from_file = cli("generate", "-f", tmp_path / "prompt.txt", "-n", 4, "--json").json()
    monkeypatch.setattr("sys.stdin", io.StringIO("Say yes."))
    assert cli("generate", "-", "-n", 4, "--json").json()["tokens"] == from_file["tokens"]


def test_generate_for_people(cli):
    out = cli("generate", "Why is the sky blue?", "-n", 8, "-s", "d3:alpha=0.9", "--compare").out
    assert "full depth" in out
    assert "30x1 27x1 24x1" in out
    assert "tokens/s" in out


def test_a_schedule_from_a_users_own_file(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nimport depthsched as ds\n\n"
        "@dataclass(frozen=True)\nclass HalfLife(ds.DepthSchedule):\n"
        '    """Depth halves every half_life tokens."""\n    half_life: float = 128.0\n\n'
        "    def depth(self, step, num_layers):\n        return num_layers * 0.5 ** (step / self.half_life)\n"
    )
    spec = f"{tmp_path}/mine.py:HalfLife:half_life=4"
    result = cli("generate", "hi", "-s", spec, "-n", 6, "--json").json()
    assert result["depths"] == [30, 25, 21, 17, 15, 12]
    again = ds.parse_schedule(result["schedule"])
    assert again.half_life == 4


def test_check_passes_built_ins_and_fails_wrong_ones(cli, tmp_path):
    assert cli("check", "d3", "--examples", 5).code == 0
    (tmp_path / "up.py").write_text(
        "from dataclasses import dataclass\nimport depthsched as ds\n\n"
        '@dataclass(frozen=True)\nclass Up(ds.DepthSchedule):\n    """Rises."""\n\n'
        "    def depth(self, step, num_layers):\n        return step + 1\n"
    )
    result = cli("check", f"{tmp_path}/up.py:Up", "--json")
    assert result.code == 2
    assert not result.json()["passed"]


def test_doctor_json(cli):
    data = cli("doctor", "--json").json()
    assert data["versions"]["torch"] != "missing"
    assert {"name", "ok", "detail"} == set(data["rows"][0])


def test_version(cli):
    assert cli("--version").out.startswith("depthsched ")


@pytest.mark.parametrize("args", [["--help"], ["list"], ["show", "d3"]])
def test_light_commands_import_no_torch(args):
    code = f"import sys, depthsched.cli as c\ntry: c.main({args!r})\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")


def test_generate_lossless(cli):
    words = ["generate", "Name three colours.", "-s", "constant:depth=24", "-n", 8, "--lossless", "--draft-tokens", 2]
    found = cli(*words, "--dtype", "float32", "--compare", "--json").json()
    assert found["equal_prefix_share"] == 1.0
    assert found["lossless"]["draft_tokens"] == "2"
    assert found["lossless"]["drafted"] > 0
    assert "lossless" not in found["full"]
    shown = cli(*words).out
    assert "constant:depth=24 @ middle-out, lossless: mean depth" in shown
    assert "passes at full depth" in shown
