# `make retrain` and `make test` do everything on a fresh machine with Python 3.11 and git.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: retrain test test-slow serve demo check lock clean

retrain: $(STAMP)
	@$(BIN)/homeranker retrain

test: $(DEV_STAMP)
	@$(BIN)/python -m pytest

test-slow: $(DEV_STAMP)
	@$(BIN)/python -m pytest -m slow

serve: $(STAMP)
	@$(BIN)/homeranker serve

demo: $(STAMP)
	@$(BIN)/homeranker demo

check: $(DEV_STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# The lock pins every package, extras included, so that it can serve as constraints for both installs.
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing from requirements.lock (minutes on a fresh machine) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@touch $@

lock: $(DEV_STAMP)
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) artifacts
