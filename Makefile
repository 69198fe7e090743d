# make demo    the three experiments on the model organism, to a report (about 7 minutes on 2 cores)
# make test    lint, types and all tests
# make check-gpu   what has to hold on a GPU before hours are spent on it (about 10 minutes)
# All create .venv first and fetch what they need; there is no other set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := models/smollm2-135m-instruct
REQUIREMENTS := $(shell nvidia-smi >/dev/null 2>&1 && echo requirements.txt || echo requirements-cpu.txt)

.PHONY: env model demo test check-gpu

env: $(VENV)/installed

$(VENV)/installed: $(REQUIREMENTS) requirements-cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -r $(REQUIREMENTS) -e '.[dev]'
	@touch $@

# vLLM's build for machines without a GPU, which only the tests need. Some of what it brings along breaks beside this torch.
$(VENV)/vllm: $(VENV)/installed requirements-test.txt
	$(BIN)/python -c 'import vllm' 2>/dev/null || $(BIN)/pip install -r requirements-test.txt \
		|| echo "vLLM has no build for this machine: its tests will be skipped"
	-nvidia-smi >/dev/null 2>&1 || $(BIN)/pip uninstall -y torchvision torchaudio torchcodec
	@touch $@

model: env
	@$(BIN)/python scripts/fetch_small_model.py $(MODEL)

demo: env
	$(BIN)/python scripts/run_experiment.py configs/experiments/demo.yaml

check-gpu: env
	$(BIN)/python -m scripts.check_gpu --out results/gpu/check.json

# What both runs of pytest need is made once
test: export MADE_ONCE := $(shell mktemp --directory --dry-run)
test: model $(VENV)/vllm
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not alone'
	$(BIN)/pytest -m alone
