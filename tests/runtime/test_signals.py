"""What adaptive schedules see: the same values however a run is made, nothing that was not asked for, or a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, PreTrainedTokenizerFast

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.errors import AttachError, PlanError, ScheduleError
from depthsched.runtime.compiled import CudaGraphBackend
from depthsched.runtime.loop import DecodeLoop
from depthsched.runtime.renewal import Renewal
from depthsched.runtime.textclass import TextClasses
from depthsched.score import Sample, score
from depthsched.signals import SIGNALS, WINDOW

from ..tiny import LAYERS, make_tiny, prompt, tiny
from .capture_double import CaptureDouble
from .engines import plain_kernels
from .helpers import greedy
from .oracle import oracle_logits
from .test_backends import compiles

STEPS = WINDOW + 6  # so that the oldest token leaves the window
ANYWHERE = tuple(name for name in SIGNALS if name not in ("cosine", "agreement"))
Seen = list[tuple[int, ds.Signals]]


@dataclass(frozen=True)
class Sees(ds.AdaptiveSchedule):
    """Writes down what it sees; its depth goes up and down with the step."""

    needs: ClassVar[tuple[str, ...]] = ANYWHERE
    log: ClassVar[Seen] = []

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - step % 4

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        self.log.append((step, signals))
        return num_layers - step % 4


@dataclass(frozen=True)
class SeesStates(Sees):
    """Also what only eager shows."""

    needs: ClassVar[tuple[str, ...]] = (*ANYWHERE, "cosine")


@dataclass(frozen=True)
class HearsChecks(Sees):
    """How often full depth agreed."""

    needs: ClassVar[tuple[str, ...]] = ("token", "agreement")


def asking(*names: str) -> Sees:
    """A schedule that asks for these."""
    return dataclass(frozen=True)(type("Asking", (Sees,), {"needs": names, "__doc__": "Asks."}))()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    Sees.log.clear()
    yield
    Sees.log.clear()


@pytest.fixture(scope="session")
def tokenizer(smollm2: tuple[Any, Any]) -> Any:
    """SmolLM2's: its first 128 tokens are special ones, digits, letters and signs."""
    return smollm2[1]


def plan_of(schedule: ds.DepthSchedule, steps: int = STEPS) -> ds.DepthPlan:
    return ds.plan(schedule, num_layers=LAYERS, horizon=steps)


def sees(model: Any, inputs: Any, plan: ds.DepthPlan, way: str, tokenizer: Any) -> tuple[torch.Tensor, Seen]:
    """The whole text of a run and what its schedule saw, row after row at each step."""
    Sees.log.clear()
    options = {"max_new_tokens": STEPS, "do_sample": False}
    if way in ("eager", "compiled", "auto"):
        run = ds.generate(model, inputs, plan, backend=way, tokenizer=tokenizer, **options)
        assert run.trace.backend == ("eager" if way == "auto" else way)
        sequences = run.sequences
    elif way == "attach":
        with ds.attach(model, plan, tokenizer=tokenizer):
            sequences = model.generate(**inputs, **options)
    elif way == "graph":
        rows, length = inputs["input_ids"].shape
        backend = CudaGraphBackend(
            adapter_for(model), plan, kernels=plain_kernels, capture=CaptureDouble, batch=rows,
            max_tokens=length + STEPS, write_kv=True,
        )  # fmt: skip
        with backend:
            loop = DecodeLoop(backend, plan, tokenizer=tokenizer)
            sequences = type(model).generate(model, **inputs, custom_generate=loop, **options)
    return sequences, [*Sees.log]


def reference(model: Any, sequences: torch.Tensor, mask: torch.Tensor, plan: ds.DepthPlan) -> list[dict[str, Any]]:
    """What the rows show at each step, from an oracle without a cache; in plain Python, without the text's classes."""
    keep_sets = [plan.keep_sets[LAYERS], *(plan.keep_sets[LAYERS - step % 4] for step in range(1, STEPS))]
    cosines: list[torch.Tensor] = []
    logits = oracle_logits(model, sequences, mask, keep_sets, write=True, cosines=cosines)
    found, past = [], [[] for _ in range(len(sequences))]
    for step in range(1, STEPS):
        for row in range(len(sequences)):
            p = logits[step - 1][row].double().softmax(-1)
            top = sorted(p.tolist(), reverse=True)
            last = {"entropy": float(-(p * p.log()).sum()), "top1": top[0], "margin": top[0] - top[1]}
            past[row] = [*past[row], last][-WINDOW:]
            found.append(
                {
                    **last,
                    **{f"mean_{n}": sum(one[n] for one in past[row]) / len(past[row]) for n in last},
                    "token": int(sequences[row, mask.shape[1] + step - 1]),
                    "prompt_tokens": int(mask[row].sum()),
                    "answer_tokens": step,
                    "cosine": float(cosines[step - 1][row]),
                }
            )
    return found


def check(seen: Seen, wanted: list[dict[str, Any]], needs: Sequence[str]) -> None:
    assert len(seen) == len(wanted)
    for (step, signals), want in zip(seen, wanted, strict=True):
        got = signals.asdict()
        assert step == want["answer_tokens"]
        assert set(got) == set(needs)
        got.pop("token_class", None)
        assert got == pytest.approx({name: want[name] for name in got}, abs=2e-5)


@pytest.mark.quick
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("way", ["eager", pytest.param("compiled", marks=compiles), "graph", "attach"])
def test_every_way_sees_what_the_oracle_sees(way: str, batch: int, tokenizer: Any) -> None:
    model, inputs = tiny("llama"), prompt(batch, 6)
    schedule = SeesStates() if way in ("eager", "attach") else Sees()
    plan = plan_of(schedule)
    sequences, seen = sees(model, inputs, plan, way, tokenizer)
    check(seen, reference(model, sequences, inputs["attention_mask"], plan), plan.needs)
    classes = TextClasses(tokenizer)
    text = sequences[:, inputs["input_ids"].shape[1] - 1 :].tolist()
    words = [classes(text[row][step], text[row][step - 1]) for step in range(1, STEPS) for row in range(batch)]
    assert [signals.token_class for _, signals in seen] == words
    assert len(set(words)) > 2


@pytest.mark.quick
def test_the_scorer_sees_what_a_run_sees(tokenizer: Any) -> None:
    model, inputs, plan = tiny("llama"), prompt(1, 6), plan_of(SeesStates())
    sequences, _ = sees(model, inputs, plan, "eager", tokenizer)
    wanted = reference(model, sequences, inputs["attention_mask"], plan)
    Sees.log.clear()
    row = sequences[0].tolist()
    found = score(model, [plan], [Sample(tuple(row[:6]), tuple(row[6:]))], tokenizer=tokenizer)[0]
    check(Sees.log, wanted, plan.needs)
    assert found.mean_depth == sum(LAYERS - step % 4 for step in range(1, STEPS)) / (STEPS - 1)


@pytest.mark.quick
@pytest.mark.parametrize("way", ["generate", "attach"])
def test_a_chunked_prefill_shows_its_last_position(way: str, tokenizer: Any) -> None:
    model, inputs, seen = tiny("llama"), prompt(2, 6), []
    for chunk in ({}, {"prefill_chunk_size": 2}):
        Sees.log.clear()
        if way == "generate":
            ds.generate(model, inputs, SeesStates(), max_new_tokens=4, do_sample=False, tokenizer=tokenizer, **chunk)
        else:
            with ds.attach(model, SeesStates(), tokenizer=tokenizer):
                greedy(model, inputs, 4, **chunk)
        seen.append([signals.asdict() for _, signals in Sees.log])
    for one, other in zip(*seen, strict=True):
        assert one.pop("token_class") == other.pop("token_class")
        assert one == pytest.approx(other, abs=1e-5)


@dataclass(frozen=True)
class ByToken(ds.AdaptiveSchedule):
    """Deeper the larger the id of the token."""

    needs: ClassVar[tuple[str, ...]] = ("token",)

    def depth(self, step: Any, num_layers: int) -> Any:
        return 4

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        return 4 + signals.token % 5


@pytest.mark.quick
@pytest.mark.parametrize("drop", [False, True])
def test_each_row_asks_for_itself_and_the_deepest_runs(drop: bool) -> None:
    model, inputs = make_tiny("llama"), prompt(4, 6)
    model.generation_config.eos_token_id = None
    free = ds.generate(model, inputs, ByToken(), max_new_tokens=10, do_sample=False)
    end = int(free.tokens[2, 3])  # a token that ends some rows and not all
    run = ds.generate(
        model, inputs, ByToken(), max_new_tokens=10, do_sample=False, eos_token_id=end, pad_token_id=0,
        drop_finished=drop,
    )  # fmt: skip
    ended = [row.index(end) if end in row else 99 for row in run.tokens.tolist()]
    assert 0 < min(ended) < max(ended)
    for step in range(1, len(run.trace.steps)):
        alive = [token for row, token in enumerate(run.tokens[:, step - 1].tolist()) if step - 1 < ended[row]]
        deepest = max(4 + token % 5 for token in alive)
        assert run.trace.depths[step] == deepest
        assert 4 + run.trace.steps[step].signals.token % 5 == deepest  # type: ignore[union-attr]


class Calls(TorchFunctionMode):
    """Counts calls of torch's functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[getattr(func, "__name__", "")] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.quick
@pytest.mark.parametrize("way", ["generate", "attach"])
@pytest.mark.parametrize(
    ("needs", "softmax", "top", "states"),
    [
        (("token", "token_class", "prompt_tokens", "answer_tokens"), 0, 0, False),
        ((), 0, 0, False),
        (("entropy",), 1, 0, False),
        (("top1", "mean_entropy"), 1, 0, False),
        (("margin",), 1, 1, False),
        (("cosine",), 0, 0, True),
    ],
)
def test_only_what_is_asked_for_is_computed(
    way: str, needs: tuple[str, ...], softmax: int, top: int, states: bool, tokenizer: Any
) -> None:
    model, inputs, plan, steps = tiny("llama"), prompt(1, 5), plan_of(asking(*needs)), 5
    with Calls() as calls:
        if way == "generate":
            ds.generate(
                model, inputs, plan, max_new_tokens=steps, do_sample=False, backend="eager", tokenizer=tokenizer
            )
        else:
            with ds.attach(model, plan, tokenizer=tokenizer if "token_class" in needs else None):
                greedy(model, inputs, steps)
    ran = LAYERS + sum(LAYERS - step % 4 for step in range(1, steps))
    assert calls.counts["log_softmax"] == softmax * (steps - 1)
    assert calls.counts["topk"] == top * (steps - 1)
    assert calls.counts["cosine_similarity"] == (ran if states else 0)
    assert [set(signals.asdict()) for _, signals in Sees.log] == [set(needs)] * (steps - 1)


@pytest.mark.quick
@pytest.mark.parametrize("way", ["eager", pytest.param("compiled", marks=compiles), "attach", "score"])
def test_agreement_is_that_of_full_depth_on_the_same_text(way: str) -> None:
    """A pass at full depth shows what full depth would have said at every position that it renews."""
    model, inputs, plan, every = tiny("llama"), prompt(2 if way != "score" else 1, 6), plan_of(HearsChecks(), 30), 5
    options: dict[str, Any] = {"max_new_tokens": 30, "do_sample": False}
    rules: dict[str, Any] = {"skipped_kv": "recompute", "renew": every}
    if way == "attach":
        with ds.attach(model, plan, **rules) as attached:
            sequences = model.generate(**inputs, **options)
        trace = attached.trace
    else:
        run = ds.generate(model, inputs, plan, backend="eager" if way == "score" else way, **options, **rules)
        sequences, trace = run.sequences, run.trace
    if way == "score":
        Sees.log.clear()
        row = sequences[0].tolist()
        score(model, [plan], [Sample(tuple(row[:6]), tuple(row[6:]))], renewal=Renewal(every=every))
    mask = torch.cat([inputs["attention_mask"], torch.ones(len(sequences), 30, dtype=torch.long)], dim=1)
    likeliest = model(input_ids=sequences, attention_mask=mask).logits.argmax(-1)
    checks: list[list[bool]] = [[] for _ in sequences]
    wanted = []
    for step, record in enumerate(trace.steps[1:], start=1):
        wanted += [sum(row[-WINDOW:]) / len(row[-WINDOW:]) if row else None for row in checks]
        slots = range(6 + step - 1 - record.renewed, 6 + step - 1)
        for row, text in enumerate(sequences.tolist()):
            checks[row] += [int(likeliest[row, slot]) == text[slot + 1] for slot in slots]
    assert [signals.agreement for _, signals in Sees.log] == wanted
    assert len({*wanted}) > 3
    assert wanted[0] is None


@pytest.mark.quick
def test_a_checked_token_counts_as_a_check() -> None:
    model, plan = tiny("llama"), plan_of(HearsChecks(), 12)
    run = ds.generate(model, prompt(1, 6), plan, max_new_tokens=12, do_sample=False, verify_below=1.0)
    assert all(record.tried or record.depth == LAYERS for record in run.trace.steps[1:])
    tried = [0, *(bool(record.tried) for record in run.trace.steps[1:])]
    assert [s.agreement is not None for _, s in Sees.log] == [sum(tried[:i]) > 0 for i in range(1, len(tried))]


@pytest.mark.quick
@pytest.mark.parametrize("names", [("margin", "token", "token_class", "answer_tokens"), ("mean_margin", "agreement")])
@pytest.mark.parametrize("batch", [1, 3])
def test_lossless_runs_see_full_depth(names: tuple[str, ...], batch: int, tokenizer: Any) -> None:
    model, inputs, plan, steps = tiny("llama", "sdpa"), prompt(batch, 6), plan_of(asking(*names), 24), 24
    run = ds.generate(
        model, inputs, plan, max_new_tokens=steps, do_sample=False, lossless=True, draft_tokens=3, tokenizer=tokenizer
    )
    mask = torch.cat([inputs["attention_mask"], torch.ones(batch, steps, dtype=torch.long)], dim=1)
    margins = _margins(model(input_ids=run.sequences, attention_mask=mask).logits)
    classes, at = TextClasses(tokenizer), [1] * batch
    checks: list[list[bool]] = [[] for _ in range(batch)]
    asked = iter(Sees.log)
    for one in run.trace.rounds or ():
        live = [row for row in range(batch) if at[row] < steps]
        for place, row in enumerate(live):
            step, signals = next(asked)
            text, last = run.sequences[row].tolist(), 6 + at[row] - 1
            assert step == at[row]
            want: dict[str, Any] = {
                "margin": margins[row][last - 1],
                "token": text[last],
                "token_class": classes(text[last], text[last - 1]),
                "answer_tokens": step,
                "mean_margin": _mean(margins[row][5:last]),
                "agreement": _mean([float(c) for c in checks[row]]) if checks[row] else None,
            }
            got = signals.asdict()
            assert got == pytest.approx({name: want[name] for name in names}, abs=1e-5)
            kept = one.accepted[place]
            checks[row] += [i < kept for i in range(min(kept + 1, one.drafted))]
            at[row] += kept + 1
    assert next(asked, None) is None
    assert any(r.drafted for r in run.trace.rounds or ())


def _margins(logits: torch.Tensor) -> list[list[float]]:
    top = logits.softmax(-1).sort(dim=-1, descending=True).values
    found: list[list[float]] = (top[..., 0] - top[..., 1]).tolist()
    return found


def _mean(values: Sequence[float]) -> float:
    last = values[-WINDOW:]
    return sum(last) / len(last)


Refused = Callable[[Any, Any], Any]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("schedule", "call", "words"),
    [
        (asking("token_class"), lambda m, p: ds.generate(m, prompt(), p), "token_class, which needs the tokenizer"),
        (asking("token_class"), lambda m, p: ds.attach(m, p), "token_class, which needs the tokenizer"),
        (asking("token_class"), lambda m, p: ds.attach(m, p, lossless=True), "token_class, which needs the tokenizer"),
        (asking("token_class"), lambda m, p: score(m, [p], [Sample((5,), (6, 7))]), "which needs the tokenizer"),
        (HearsChecks(), lambda m, p: ds.generate(m, prompt(), p), "agreement, and nothing compares with full depth"),
        (HearsChecks(), lambda m, p: ds.attach(m, p), "agreement, and nothing compares with full depth"),
        (HearsChecks(), lambda m, p: score(m, [p], [Sample((5,), (6, 7))]), "agreement, and nothing compares"),
        (asking("cosine"), lambda m, p: ds.generate(m, prompt(), p, lossless=True), "cosine, which lossless runs do"),
        (asking("cosine"), lambda m, p: ds.attach(m, p, lossless=True), "cosine, which lossless runs do not keep"),
        (asking("margin"), lambda m, p: ds.attach(m, p, tokenizer=object()), "leave it out"),
    ],
)
def test_what_a_run_cannot_give_is_refused_in_one_line(schedule: Any, call: Refused, words: str) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        call(tiny("llama"), plan_of(schedule, 8))
    assert "\n" not in str(caught.value)


@compiles
def test_states_between_layers_are_seen_in_eager_only() -> None:
    model, plan = tiny("llama"), plan_of(asking("cosine"), 4)
    with pytest.raises(PlanError, match="asks for cosine, and the states between layers are seen in eager only"):
        ds.generate(model, prompt(), plan, max_new_tokens=4, backend="compiled")
    run = ds.generate(model, prompt(), plan, max_new_tokens=4, do_sample=False)
    assert (run.trace.backend, "cosine" in run.trace.reason) == ("eager", True)
    assert ds.generate(model, prompt(), asking("margin"), max_new_tokens=4).trace.backend == "compiled"


@pytest.mark.quick
def test_beams_change_places_so_what_one_row_showed_before_is_refused() -> None:
    model = tiny("llama")
    for name in ("token", "mean_margin"):
        with ds.attach(model, asking(name)), pytest.raises(AttachError, match=f"{name}, and the beams"):
            greedy(model, prompt(), 4, num_beams=2)
    with ds.attach(model, asking("margin", "cosine", "answer_tokens", "prompt_tokens")) as attached:
        greedy(model, prompt(), 4, num_beams=2)
    assert attached.trace is not None
    assert {s.prompt_tokens for _, s in Sees.log} == {5}
    embedded = {"inputs_embeds": model.get_input_embeddings()(prompt()["input_ids"])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    with (
        ds.attach(model, asking("token_class"), tokenizer=tokenizer),
        pytest.raises(AttachError, match="needs the ids of the prompt"),
    ):
        greedy(model, embedded, 4)
    with ds.attach(model, asking("token", "prompt_tokens")):
        greedy(model, embedded, 4)
    assert Sees.log[-1][1].prompt_tokens == 5


@pytest.mark.quick
def test_a_second_turn_counts_the_whole_prompt(tokenizer: Any) -> None:
    model, schedule = tiny("llama"), asking("prompt_tokens", "token_class")
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "tokenizer": tokenizer}
    first = ds.generate(model, prompt(1, 5), schedule, **options)
    Sees.log.clear()
    ids = torch.cat([first.sequences, prompt(1, 3, seed=4)["input_ids"]], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    second = ds.generate(model, inputs, schedule, past_key_values=first.cache, **options)
    classes = TextClasses(tokenizer)
    assert {s.prompt_tokens for _, s in Sees.log} == {13}
    assert Sees.log[0][1].token_class == classes(int(second.tokens[0, 0]), int(ids[0, -1]))
    with ds.attach(model, schedule, tokenizer=tokenizer):
        cache = DynamicCache(config=model.config)
        model.generate(**prompt(1, 5), past_key_values=cache, max_new_tokens=5, do_sample=False)
        Sees.log.clear()
        model.generate(**inputs, past_key_values=cache, max_new_tokens=5, do_sample=False)
    assert {s.prompt_tokens for _, s in Sees.log} == {13}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (("margn",), "needs a signal 'margn', and there is none; did you mean 'margin'"),
        (("margin", 3), "needs a signal 3, and there is none"),
        ("margin", "must be a tuple of names of signals"),
        (["margin"], "must be a tuple of names of signals"),
    ],
)
def test_a_name_that_is_no_signal_is_an_error_of_the_plan(needs: Any, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as caught:
        plan_of(asking(*needs) if isinstance(needs, tuple) else _with(needs))
    assert "\n" not in str(caught.value)


def _with(needs: Any) -> Sees:
    return dataclass(frozen=True)(type("Wrong", (Sees,), {"needs": needs, "__doc__": "Asks wrongly."}))()


@pytest.mark.quick
def test_reading_what_was_not_asked_for_says_what_to_write() -> None:
    @dataclass(frozen=True)
    class Reads(ds.AdaptiveSchedule):
        """Reads what it does not ask for."""

        needs: ClassVar[tuple[str, ...]] = ("margin",)

        def depth(self, step: Any, num_layers: int) -> Any:
            return 5

        def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
            return 5 if signals.cosine > 0.5 else num_layers

    with pytest.raises(
        ScheduleError, match=r"signals.cosine .* write needs = \('margin', 'cosine'\) in the schedule's class"
    ):
        ds.generate(tiny("llama"), prompt(), Reads(), max_new_tokens=3)
    seen = ds.Signals(margin=0.5)
    with pytest.raises(AttributeError, match="no signal is called 'confidence'"):
        _ = seen.confidence  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="cannot be changed"):
        seen.margin = 0.1
    with pytest.raises(TypeError, match="'sure'"):
        ds.Signals(sure=1)


def test_the_class_of_a_token_by_hand(tokenizer: Any) -> None:
    text = "<|im_start|>The cat's 42 hats,\n\nIt cost (unbelievably) 3.50 €  naïvely"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    classes = TextClasses(tokenizer)
    found = [classes(token, ids[i - 1] if i else None) for i, token in enumerate(ids)]
    pieces = dict(zip([tokenizer.decode([i]) for i in ids], found, strict=True))
    wanted = {
        "<|im_start|>": "special", "The": "word", " cat": "word", "4": "digit", "2": "digit", " hats": "word",
        ",": "punctuation", "It": "word", " (": "punctuation", "un": "word", "belie": "continuation",
        "ably": "continuation", "3": "digit", ".": "punctuation",
    }  # fmt: skip
    assert {piece: pieces[piece] for piece in wanted} == wanted
    assert found[ids.index(tokenizer.convert_tokens_to_ids("Ċ"))] == "newline"
    assert classes(len(tokenizer) + 5, ids[0]) == "special"
    assert {classes(ids[1], None), classes(ids[1], ids[0])} == {"word"}


def test_a_space_that_a_tokenizer_does_not_show_alone_makes_a_word() -> None:
    words = {"<unk>": 0, "a": 1, "▁cat": 2, "s": 3, "▁": 4, "9": 5, "<0x0A>": 6}
    plain = Tokenizer(models.WordLevel(words, "<unk>"))
    plain.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")
    assert tokenizer.decode([2]).lstrip() == "cat"
    classes = TextClasses(tokenizer)
    pairs = [(2, 3), (3, 2), (3, 4), (4, 2), (5, 2), (6, 2), (0, 2)]
    assert [classes(token, before) for token, before in pairs] == [
        "word", "continuation", "word", "space", "digit", "newline", "special",
    ]  # fmt: skip


@pytest.mark.parametrize("variant", ["llama", "gemma2-sliding"])
def test_a_static_cache_hides_neither_the_mask_nor_its_padding(variant: str) -> None:
    model, inputs = make_tiny(variant, "sdpa"), prompt(2, 4)
    inputs["attention_mask"][:] = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    options = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": "static", "disable_compile": True}
    with ds.attach(model, plan_of(asking("prompt_tokens", "margin"))):
        model.generate(**inputs, **options)
    assert [seen.prompt_tokens for _, seen in Sees.log] == [2, 4] * 3
    with ds.attach(model, "confidence:depth=3"):  # one that never looks at the mask
        model.generate(**inputs, **options)


def test_a_backend_that_one_pass_would_not_use_is_refused() -> None:
    model, samples = tiny("llama", "sdpa"), [Sample((3, 4, 5), (6, 7, 8))]
    plan = ds.plan("constant:depth=3", num_layers=LAYERS, horizon=3)
    with pytest.raises(PlanError, match="one pass, which backend='auto' has no part in"):
        score(model, [plan], samples, backend="auto")
    one, other = (score(model, [plan], samples, method="step-by-step", backend=b)[0] for b in ("eager", "auto"))
    assert one.kl.mean == pytest.approx(other.kl.mean, abs=1e-5)
