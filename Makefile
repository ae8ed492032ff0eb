# Steerboard's commands. `make help` lists them.

PYTHON ?= python3.11
PORT ?= 8000
DATASET ?= tabby-cats
TESTS ?=
SLUGS ?=
NAMES ?=
MODEL ?=
FLAGS ?=
QUICK ?=
MINUTES ?=
SAE ?=

VENV_PYTHON := .venv/bin/python
NEEDS_PYTHON = command -v $(PYTHON) >/dev/null 2>&1 || { \
	echo "Steerboard needs Python 3.11, and $(PYTHON) was not found. Install it (Debian, Ubuntu: apt install python3.11 python3.11-venv; macOS: brew install python@3.11), or name yours: make run PYTHON=/path/to/python3.11" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help run stack stack-stop demo test check format audit doctor size bench soak bench-peers vllm clients starters presets sae clean install install-dev

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: install ## serve on 127.0.0.1:8000 (PORT=...), preparing everything the first time
	@$(VENV_PYTHON) manage.py serve --port $(PORT)

stack: install ## run as in production, on Redis and PostgreSQL: two web processes, a web worker, an inference worker (PORT=...)
	@$(VENV_PYTHON) -m scripts.stack run --port $(PORT)

stack-stop: ## stop what make stack started
	@$(VENV_PYTHON) -m scripts.stack stop

demo: install ## build a vector and compare base with steered, in the terminal (DATASET=calm)
	@$(VENV_PYTHON) -m scripts.demo --dataset $(DATASET)

test: install-dev ## run every test that can run here, side by side, and say what was skipped and why (TESTS=path)
	@$(VENV_PYTHON) -m pytest -rfEs $(if $(TESTS),$(TESTS),-n auto --dist loadfile --max-worker-restart 0)

check: install-dev ## style, types and tests
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy
	@$(VENV_PYTHON) -m mypy --config-file client/pyproject.toml
	@$(MAKE) --no-print-directory test

format: install-dev ## let ruff sort imports and format
	@$(VENV_PYTHON) -m ruff check --fix-only --quiet .
	@$(VENV_PYTHON) -m ruff format --quiet .

starters: install ## build the starter vectors again and measure what they do, which takes long (SLUGS="calm brevity")
	@$(VENV_PYTHON) -m scripts.starters $(SLUGS)

presets: install ## make the presets with fixed names, such as truthfulness, for a model (MODEL=org/name NAMES="brevity" FLAGS="--again")
	@$(if $(MODEL),INFERENCE_URL=inprocess://$(MODEL)) $(VENV_PYTHON) manage.py prepare
	@$(if $(MODEL),INFERENCE_URL=inprocess://$(MODEL)) $(VENV_PYTHON) manage.py presets $(NAMES) $(FLAGS)

sae: install ## train a sparse autoencoder on text, or go on with one (SAE="folder --layer 9"; SAE=--help lists all)
	@$(VENV_PYTHON) -m inference.saes.train $(SAE)

audit: install-dev ## ask the advisory databases about every installed and vendored package (needs npm and the net)
	@$(VENV_PYTHON) -m scripts.audit

doctor: install ## look at everything this installation stands on, with a cure for what is wrong
	@$(VENV_PYTHON) manage.py doctor

size: ## lines per folder
	@$(NEEDS_PYTHON)
	@$(PYTHON) scripts/size.py

bench: install-dev ## run the benchmarks, half an hour; results go to benchmarks/results and README (QUICK=1: try them)
	@for name in decode pair drafts policy sweep experiment extract latency watching constraints behaviors overhead stop coldstart memory isolation; do $(VENV_PYTHON) -m benchmarks.$$name $(if $(QUICK),--quick) || exit 1; done
	@most=$$(getconf _NPROCESSORS_ONLN); [ $$most -eq 1 ] || \
		OMP_NUM_THREADS=$$((most - 1)) $(VENV_PYTHON) -m benchmarks.latency $(if $(QUICK),--quick)
	@$(VENV_PYTHON) -m benchmarks.soak --quick
	@$(VENV_PYTHON) -m benchmarks.readme

soak: install-dev ## 250 websockets on one web process for a quarter of an hour, then again behind Redis (MINUTES=5)
	@$(VENV_PYTHON) -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES))
	@$(VENV_PYTHON) -m benchmarks.soak --redis $(if $(MINUTES),--minutes $(MINUTES))
	@$(VENV_PYTHON) -m benchmarks.readme

bench-peers: ## install what the benchmarks compare with and that needs venvs of its own: vLLM and repeng
	@$(NEEDS_PYTHON)
	@$(PYTHON) scripts/peers.py

vllm: ## install vLLM in a venv of its own, 4 GB, for workers with --engine vllm and their tests (docs/vllm.md)
	@$(NEEDS_PYTHON)
	@$(PYTHON) scripts/peers.py vllm

clients: ## install what tests drive as clients of the API: lm-eval and OpenAI's JavaScript package
	@$(NEEDS_PYTHON)
	@$(PYTHON) scripts/clients.py

clean: ## remove .venv and caches; the data folder stays
	@rm -rf .venv .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis staticfiles
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

install:
	@$(NEEDS_PYTHON)
	@$(PYTHON) scripts/install.py run

install-dev:
	@$(NEEDS_PYTHON)
	@$(PYTHON) scripts/install.py dev
