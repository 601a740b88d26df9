"""What has to be measured for the pages of results: commands as one would type them, in the order in which they run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from depthsched.errors import ModelError

SPEED, QUALITY, TASKS, PEERS, LOSSLESS, PREMISE, SIGNAL, PREDICT, OFFLOAD, POOLED, COPYING = (
    Path("docs/results", name)
    for name in (
        "data", "quality", "tasks", "peers", "lossless", "premise", "signal", "predict", "offload", "pooled", "copying",
    )
)  # fmt: skip
GALLERY = Path(__file__).with_name("gallery.yaml").relative_to(Path(__file__).parents[1])
BENCH = "depthsched bench --json --backends compiled --baseline none"
BBH = "sports_understanding date_understanding navigate penguins_in_a_table reasoning_about_colored_objects"


def run(line: str) -> None:
    """Run a module of Python, ``MODULE WORDS > FILE``. The file is replaced when it is done, and kept if it fails.

    Raises
    ------
    ModelError
        It failed; it has said why on stderr.
    """
    words, target = split(line)
    done = subprocess.run([sys.executable, "-m", *words], stdout=subprocess.PIPE if target else None, text=True)
    if done.returncode:
        raise ModelError(f"exit code {done.returncode} of: python -m {line}")
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}")
        scratch.write_text(done.stdout, encoding="utf-8")
        scratch.replace(target)


def split(line: str) -> tuple[list[str], Path | None]:
    """The words of a line, and the file behind its ``>``."""
    words = shlex.split(line)
    return (words[:-2], Path(words[-1])) if words[-2:-1] == [">"] else (words, None)


def speed() -> Iterator[str]:
    """For the page on speed."""
    plans = quote("constant:depth=24;constant:depth=20;constant:depth=15;d3:alpha=0.9945")
    rows = "--plans 'constant:depth=20;d3:alpha=0.9945' --backends compiled --tokens 64 --batch 8"
    for dtype in ("bfloat16", "float32"):
        yield f"depthsched bench --json --dtype {dtype} --plans {plans} > {SPEED}/smollm2-{dtype}.json"
        yield f"depthsched bench --json --dtype {dtype} {rows} > {SPEED}/smollm2-{dtype}-batch-8.json"
        yield f"benchmarks memory --dtype {dtype} > {SPEED}/memory-{dtype}.json"
        yield f"benchmarks cold --dtype {dtype} > {SPEED}/wait-{dtype}.json"
        yield f"benchmarks first --dtype {dtype} > {SPEED}/first-{dtype}.json"
        yield f"benchmarks first --dtype {dtype} --batch 8 > {SPEED}/first-{dtype}-batch-8.json"
    yield f"{BENCH} --dtype bfloat16 --repeats 15 --plans {plans} > {SPEED}/smollm2-bfloat16-compiled.json"
    native = "--dtype bfloat16 --weights native"
    yield f"{BENCH} {native} --plans {plans} > {SPEED}/smollm2-native.json"
    yield f"{BENCH} {native} --batch 8 --tokens 64 --plans {plans} > {SPEED}/smollm2-native-batch-8.json"
    yield f"benchmarks memory {native} --backends compiled > {SPEED}/memory-native.json"
    yield f"benchmarks cold {native} > {SPEED}/wait-native.json"
    yield f"benchmarks first {native} > {SPEED}/first-native.json"
    for dtype in ("bfloat16", "float32"):
        yield f"benchmarks long --dtype {dtype} --plan constant:depth=24 > {SPEED}/long-{dtype}.json"
    yield f"benchmarks long {native} --plan constant:depth=24 > {SPEED}/long-native.json"
    yield f"benchmarks long --tokens 8128 --plan constant:depth=24 > {SPEED}/long-8192.json"
    yield "benchmarks pages speed"
    yield f"benchmarks predict > {PREDICT}/this.json"
    yield "benchmarks pages predict"
    yield f"benchmarks offload > {OFFLOAD}/smollm2.json"
    yield "benchmarks pages offload"
    yield "pytest -m evidence tests/runtime"


def quality(data: Path, scratch: Path) -> Iterator[str]:
    """For the pages on quality and on position."""
    where, kept, gsm8k = quote(str(data)), quote(str(scratch)), quote(str(data / "gsm8k"))
    yield f"benchmarks prompts {where} {kept}"
    yield (
        f"depthsched calibrate --json --prompts {gsm8k}/train-2000.jsonl --limit 128 --out {kept}/profile"
        f" > {QUALITY}/calibrate.json"
    )
    yield f"depthsched calibrate --prompts {kept}/mixed.jsonl --orders block --out {kept}/mixed"

    def plans(*orders: str) -> str:
        return quote(";".join(f"constant:depth={depth}{order}" for order in orders for depth in (24, 20)))

    # What `calibrate` ranked one by one, for comparison.
    ranked = json.loads((QUALITY / "calibrate.json").read_text(encoding="utf-8"))["evidence"]["orders"]["ranked"]
    listed = f"@list:layers={'+'.join(map(str, ranked['drop_order']))}"
    five = plans("", "@ranked:bridges=false", listed, "@middle-out", "@early-exit")
    test, bbh = f"--prompts {gsm8k}/test-500.jsonl", f"--prompts {kept}/bbh-test.jsonl"
    one, both, score = f"--profile {kept}/profile", f"--profile {kept}/mixed", "depthsched score --json"
    yield f"{score} {test} --limit 48 {one} --schedule {five} > {QUALITY}/gsm8k.json"
    yield f"{score} {bbh} {one} --schedule {plans('', '@middle-out')} > {QUALITY}/bbh.json"
    yield f"{score} {bbh} {both} --schedule {plans('')} > {QUALITY}/bbh-mixed.json"
    yield f"{score} {test} --limit 48 {both} --schedule {plans('')} > {QUALITY}/gsm8k-mixed.json"

    yield f"benchmarks study {test} --limit 48 {one} --depths 24,20 > {QUALITY}/position.json"
    yield f"benchmarks paired {test} --limit 16 {one} --repeats 1 > {QUALITY}/paired.json"
    few = "--profile smollm2 --limit 12 --max-new-tokens 96 --clock-prompts 3"
    yield f"benchmarks renewal {test} {few} > {QUALITY}/renewal.json"
    yield f"benchmarks adaptive {test} --profile smollm2 --limit 12 > {QUALITY}/adaptive.json"
    for dtype in ("float32", "bfloat16"):
        yield f"{BENCH} --dtype {dtype} {one} --tokens 96 --plans {plans('')} > {QUALITY}/bench-{dtype}.json"
    yield "benchmarks pages quality"


def tasks(data: Path, scratch: Path) -> Iterator[str]:
    """For the page on tasks, with the profile of :func:`quality`. What is done is read from the scratch folder."""
    fitted = f"+profile={scratch / 'profile'}"
    plans = [
        *(f"d3:alpha={alpha}" for alpha in ("0.9984", "0.9957", "0.9914")),
        *(f"d3:alpha={alpha}{fitted}" for alpha in ("0.9981", "0.9954", "0.9858")),
        *(f"constant:depth={depth}{fitted}" for depth in (26, 22, 17)),
        *(f"linear:end={end}" for end in (23, 15, 5)),
    ]
    which, where = f"--plans {quote(';'.join(plans))}", quote(str(data))
    evaluate = (
        f"depthsched eval --json --data {where} {which} --max-new-tokens 128 --dtype bfloat16 --backend eager"
        f" --batch 50 --out {quote(str(scratch / 'tasks'))}"
    )
    bbh = ",".join(f"bbh_cot_fewshot_{task}" for task in BBH.split())
    yield f"{BENCH} --dtype bfloat16 {which} > {TASKS}/speed.json"
    yield f"{evaluate} --limit 200 --tasks gsm8k_cot > {TASKS}/gsm8k.json"
    yield f"{evaluate} --limit 50 --tasks {bbh} > {TASKS}/bbh.json"
    yield f"benchmarks batching {where} --batches 1,16 --rounds 2 --limit 16 > {TASKS}/batching/float32.json"
    yield "benchmarks pages tasks"


def peers(env: Path, scratch: Path) -> Iterator[str]:
    """For the page on peers, with the profile of :func:`quality`."""
    where = quote(str(env))
    yield f"benchmarks peers setup --env {where}"
    profile = quote(str(scratch / "profile"))
    yield f"benchmarks peers run --env {where} --profile {profile} > {PEERS}/smollm2.json"
    yield "benchmarks pages peers"


def lossless(questions: Path, scratch: Path) -> Iterator[str]:
    """For the page on lossless runs, with a quick profile of its own on GSM8K's training questions."""
    profile = quote(str(scratch / "quick"))
    train = quote(str(questions.parent / "gsm8k" / "train-2000.jsonl"))
    yield f"depthsched calibrate --prompts {train} --limit 24 --order block --min-depth 18 --out {profile}"
    where = f"benchmarks lossless {quote(str(questions))} --profile {profile}"
    memory = "benchmarks memory --backends eager,compiled --plan constant:depth=24 --lossless"
    yield f"{memory} > {LOSSLESS}/memory.json"
    one = "--dtype float32 --limit 1 --max-new-tokens 256 --no-others"
    yield f"{where} {one} --draft-tokens 1,2,3 --repeats 1 > {LOSSLESS}/float32-fixed.json"
    auto = "--profile smollm2 --plans constant:depth=20 --draft-tokens auto --repeats 3"
    yield f"benchmarks lossless {quote(str(questions))} {one} {auto} > {LOSSLESS}/float32-auto.json"
    yield f"{where} --dtype float32 --limit 1 --draft-tokens auto --repeats 1 > {LOSSLESS}/float32-others.json"
    more = "--dtype bfloat16 --limit 1 --no-others --draft-tokens 1,2 --repeats 1"
    yield f"{where} {more} > {LOSSLESS}/bfloat16.json"
    yield f"{where} {more} --weights native > {LOSSLESS}/native.json"
    yield "benchmarks pages lossless"


def premise(data: Path, scratch: Path) -> Iterator[str]:
    """For the page on the premise of D³."""
    where, kept = quote(str(data)), quote(str(scratch))
    yield f"benchmarks prompts {where} {kept}"
    sets = {
        "gsm8k": quote(str(data / "gsm8k" / "test-500.jsonl")),
        "ifeval": f"{kept}/ifeval-test.jsonl",
        "xquad": f"{kept}/xquad-test.jsonl",
    }
    for name, prompts in sets.items():
        orders = quote(";".join(("ranked", "ranked:bridges=false", "middle-out")) if name == "gsm8k" else "ranked")
        yield (
            f"depthsched oracle --json --prompts {prompts} --limit 12 --profile smollm2 --order {orders}"
            f" > {PREMISE}/{name}.json"
        )
    yield "benchmarks pages premise"


def pooled(data: Path, scratch: Path) -> Iterator[str]:
    """For the page on pooled differences. What is done is read from the scratch folder."""
    kept = quote(str(scratch))
    yield f"benchmarks prompts {quote(str(data))} {kept}"
    plans = [f"constant:depth={depth}" for depth in (26, 24, 22, 20)]
    plans += [f"d3:alpha={alpha}" for alpha in ("0.998", "0.99673", "0.9951", "0.9902")]  # the same mean depths
    plans += [f"optimal:budget={budget}" for budget in (1.1, 1.17, 1.25, 1.34)]
    which = f"--profile smollm2 --plans {quote(';'.join(plans))}"
    yield (
        f"depthsched eval --json --data {kept}/rest --tasks ifeval,xquad_en -n 128 --batch 16 {which} --pool all"
        f" --out {kept}/pooled > {POOLED}/scores.json"
    )
    yield f"{BENCH} --weights native --tokens 96 --repeats 15 {which} > {POOLED}/speed.json"
    yield "benchmarks pages pooled"


def copying(data: Path, scratch: Path) -> Iterator[str]:
    """For the page on copying, with the profiles ``smollm2`` and ``smollm2-copying``."""
    kept = quote(str(scratch))
    yield f"benchmarks prompts {quote(str(data))} {kept}"
    task = f"depthsched eval --json --data {kept}/rest --tasks niah_single_1 --needle-tokens 256 -n 24 --batch 16"
    single = quote(";".join(f"constant:depth=29@list:layers={layer}" for layer in range(1, 29)))
    yield f"{task} --limit 48 --plans {single} > {COPYING}/layers.json"
    orders = ("middle-out", "strided", "early-exit", "ranked:bridges=false")
    others = quote(";".join(f"constant:depth={depth}@{order}" for depth in (26, 22) for order in orders))
    yield f"{task} --limit 100 --profile smollm2 --plans {others} > {COPYING}/orders.json"
    yield f"benchmarks blocks --prompts {kept}/copying.jsonl --data {kept}/rest > {COPYING}/blocks.json"
    plans = [f"constant:depth={depth}" for depth in (29, 26, 24, 22, 20)]
    plans += ["d3:alpha=0.998", "d3:alpha=0.9951", "optimal:budget=1.1", "optimal:budget=1.25"]
    for name, profile in (("smollm2", "smollm2"), ("copying", "smollm2-copying")):
        which = f"--profile {profile} --plans {quote(';'.join(plans))} --pool niah_single_1"
        yield f"{task} --limit 500 {which} --out {kept}/needles > {COPYING}/{name}.json"
    both = quote(
        ";".join(f"constant:depth={d}+profile={p}" for d in (26, 24, 22, 20) for p in ("smollm2", "smollm2-copying"))
    )
    sets = {name: f"{kept}/{name}-test.jsonl" for name in ("bbh", "ifeval", "xquad")}
    for name, prompts in {"gsm8k": quote(str(data / "gsm8k" / "test-500.jsonl")), **sets}.items():
        scored = f"--prompts {prompts} --limit 48 --plans {both}"
        yield f"depthsched score --json {scored} > {COPYING}/score-{name}.json"
    yield "benchmarks pages copying"


def gallery(data: Path, scratch: Path) -> Iterator[str]:
    """For the gallery; what is done is read from the scratch folder."""
    folder = quote(str(scratch / "gallery"))
    prompts = quote(str(data / "gsm8k" / "test-500.jsonl"))
    yield f"depthsched gallery run {GALLERY} --out {folder} --prompts {prompts} --profile smollm2"
    yield f"benchmarks gallery-page {folder}"


def signal(data: Path) -> Iterator[str]:
    """For the page on signal."""
    yield f"benchmarks peeking > {SIGNAL}/peeking.json"
    yield f"benchmarks signal {quote(str(data))} --limit 40 > {SIGNAL}/plain.json"
    yield "benchmarks pages signal"
