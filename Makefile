# `make` alone lists the commands. Needed beforehand: Linux, make, Python 3.11 or newer. Nothing has to be activated.
#   PYTHON=python3.12   the Python that .venv is made with
#   WORKERS=2           how many processes run the tests
#   SINCE=main          `make check` runs what differs from this branch may concern; empty: all
#   KEEP=1              `make lock` moves no version that still fits
#   BUILD=cpu|cuda      the build of PyTorch and vLLM (found out by itself)

FIND_PYTHON = for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; exit; }; done; echo python3
PYTHON ?= $(shell $(FIND_PYTHON))
NEED_PYTHON = command -v $(PYTHON) >/dev/null || { echo "install: no $(PYTHON) here. \
	Run: sudo apt-get install python3 python3-venv, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
export BUILD
BIN := .venv/bin
PYTEST_ARGS ?=
WORKERS ?= 2
SINCE ?= $(shell git rev-parse --quiet --verify main > /dev/null 2>&1 && echo main)

# Compiled modules are kept, whatever the surroundings say: the tests start the program hundreds of times, .35 s less each.
test test-all check: export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo app test test-all check docs bench bench-train bench-rag tiny lock next compress install install-dev doctor clean

help:
	@echo "llmbench: fine-tune, ground, serve and compare language models"
	@echo
	@echo "  make demo    install (2 to 5 minutes, once), then the whole workbench on a bundled model (6 minutes on two cores)"
	@echo "  make app     open the app with the demo's results (half a minute to start; Ctrl-C ends it)"
	@echo "  make test    install, then every check and all but the long tests, with real vLLM and a real browser (21 minutes)"
	@echo "  make test-all  the same with the long tests, which repeat at length what others check (half an hour)"
	@echo "  make check   ruff, mypy and the quick tests that a change may concern (a minute at most)"
	@echo "  make docs    write docs/cli.md again after a change of the command line (a second)"
	@echo "  make bench   the tables of docs/benchmarks.md (10 minutes; with DATA=FOLDER half an hour)"
	@echo "  make bench-rag DATA=FOLDER     indexing and searching compared with LlamaIndex, LangChain and txtai (an hour)"
	@echo "  make bench-train SOURCE=FILE   training speed with loss parity, and how good estimates are (an hour)"
	@echo "  make tiny    make the bundled base model again (hours; its model card says how many)"
	@echo "  make lock    write the lock files again: the newest versions that pyproject.toml allows (half a minute)"
	@echo "  make next    selftest, training and engine tests with the newest releases, in .venv-next (7 GiB)"
	@echo "  make compress  llm-compressor in .venv-compress (5 GiB), for llmbench export --format int8, w4a16, awq and fp8"
	@echo "  make doctor  what is there, what is missing, and the command that fixes it"
	@echo "  make clean   remove what was installed and built (outputs/ stays)"

demo: install
	@echo "Running the demo: train, index, serve, compare (about 6 minutes on two cores; a second run reuses what is there)"
	@$(BIN)/llmbench demo

app: install
	@echo "Starting vLLM, the gateway and the app (half a minute; Ctrl-C ends all of them)"
	@$(BIN)/llmbench app --serve recipes/serve.yaml

test: TESTS = -m "not long"
test: SAY = all but the long tests with real vLLM, embedder and browser (21 minutes on two cores)
test-all: SAY = all tests with real vLLM, embedder and browser (half an hour on two cores)
test test-all: install-dev
	@echo "Testing: ruff, mypy, then $(SAY)"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=10 $(TESTS) $(PYTEST_ARGS)

check: install-dev
	@echo "Checking: ruff, mypy and the quick tests that this change may concern (a minute at most; SINCE= runs all of them)"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy & mypy=$$!; \
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not expensive and not long and not gpu" $(if $(SINCE),--changed $(SINCE)) $(PYTEST_ARGS); \
	tested=$$?; wait $$mypy && exit $$tested

docs: install
	@$(BIN)/python -m llmbench.cli.reference docs/cli.md

bench: install
	@echo "Measuring the tables of docs/benchmarks.md (half an hour with DATA, 10 minutes without)"
	@$(BIN)/python benchmarks/tiny_reading.py
	@$(BIN)/python benchmarks/demo_worlds.py
ifdef DATA
	@$(BIN)/python benchmarks/banking77.py $(DATA)/banking77/train.csv
	@$(BIN)/python benchmarks/retrieval_scifact.py $(DATA)/scifact
	@$(BIN)/python benchmarks/retrieval_sec10q.py $(DATA)/kg_rag_sec10q/docs
else
	@echo "The other tables need their data: make bench DATA=FOLDER, with banking77/train.csv, scifact/ and kg_rag_sec10q/docs/"
endif

bench-train: install
	@echo "Measuring training speed and estimates against peers (an hour on two cores; needs SOURCE=gsm8k/train.jsonl; 	TRL=PYTHON and LLAMAFACTORY=CLI name environments of the peers)"
	@$(BIN)/python benchmarks/train_speed.py $(SOURCE) $(if $(TRL),--trl $(TRL)) $(if $(LLAMAFACTORY),--llamafactory $(LLAMAFACTORY))
	@$(BIN)/python benchmarks/estimates.py $(SOURCE)
	@$(BIN)/python benchmarks/preference_speed.py $(SOURCE)
	@$(BIN)/python benchmarks/long_rows.py

bench-rag: install
	@echo "Measuring retrieval beside its peers (an hour on two cores; needs DATA=FOLDER with scifact/; PEERS=FOLDER names their environment)"
	@$(BIN)/python benchmarks/rag_peers.py $(DATA)/scifact $(if $(PEERS),--peers $(PEERS)) $(if $(DOCUMENTS),--documents $(DOCUMENTS))

tiny: export LLMBENCH_HOME = outputs
tiny: install
	@echo "Making the bundled base model: tokenizer, then three trainings (an hour and a half on two cores; stopped, the same command goes on)"
	@$(BIN)/python -m llmbench.tiny tokenizer outputs/tiny/tokenizer
	@$(call TRAIN,pretrain-tiny,model.tokenizer=outputs/tiny/tokenizer)
	@$(call TRAIN,pretrain-tiny-cite)
	@$(call TRAIN,pretrain-tiny-absence)
	@cp outputs/runs/pretrain-tiny-absence/model/* src/llmbench/tiny/model/
TRAIN = grep -qs '"state": "finished"' outputs/runs/$(1)/state.json || \
	$(BIN)/llmbench train recipes/$(1).yaml $(2) $(if $(wildcard outputs/runs/$(1)/state.json),--resume)

lock: install-dev
	@$(BIN)/python locks/lock.py $(if $(KEEP),--keep)

next: install-dev
	@$(BIN)/python locks/newest.py $(PYTEST_ARGS)

compress:
	@$(NEED_PYTHON)
	@$(PYTHON) -m venv .venv-compress
	@.venv-compress/bin/python -m pip install --require-hashes -r locks/compress/requirements.txt

doctor: install
	@$(BIN)/llmbench doctor

install:
	@$(NEED_PYTHON)
	@$(PYTHON) install.py

install-dev:
	@$(NEED_PYTHON)
	@$(PYTHON) install.py --dev

clean:
	rm -rf .venv .venv-next .venv-compress dist build .mypy_cache .ruff_cache .pytest_cache
