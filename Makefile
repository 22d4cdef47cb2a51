# make demo: from a fresh clone to an answered question. make test, check, slow: for developers.
# Stamp files under .venv make a second call instant; they go stale when pyproject.toml changes.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TORCH  ?= torch==2.13.0
QUESTION ?= Which is more densely populated, Japan or Germany, and by what factor?

.PHONY: demo weights test native slow check format web docs dist clean
.DEFAULT_GOAL := test

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.local: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,geo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,dev]'
	@touch $@ $(VENV)/.local

# A torch of its own release, so that a machine which offers a build for CPUs takes that one.
$(VENV)/.native: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) --editable '.[native]'
	@touch $@

weights: $(VENV)/.local
	@$(BIN)/llmcompiler models pull

demo: weights
	@$(BIN)/llmcompiler run "$(QUESTION)"

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m "not slow and not native"

native: $(VENV)/.native
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "native and not slow" tests/llm/native

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m "slow and not native"

check: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The pages of report and ui, from web/ into the package; needs Node.js.
web:
	cd web && npm ci --no-audit --no-fund --ignore-scripts && npm run --silent check && npm run --silent build

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

dist: $(VENV)/.dev
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
