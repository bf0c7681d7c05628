# Every verb does its own set-up. PYTHON may name another interpreter of 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROFILE ?= cpu
DEV := cpu,train,export,serve,dev

.PHONY: run lint test test-slow toy overhead bench gpu gpu-train roofline soak loadtest loadtest-peers openapi build clean

run: $(VENV)/.run  ## encode, compare and classify Russian sentences with the shipped model
	$(BIN)/python examples/first_steps.py

lint: $(VENV)/.dev  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: $(VENV)/.dev  ## the fast tests, in two processes
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.dev  ## packaging, resume after a kill, the whole toy line
	$(BIN)/python -m pytest -q -m slow

toy: $(VENV)/.dev  ## the whole line on self-written sentences, in about a minute
	$(BIN)/rubert-lite train all --config train/configs/toy.toml
	$(BIN)/rubert-lite export runs/toy/06-toy-reviews --to runs/toy/package --force
	echo "Отличный концерт, приду ещё." | $(BIN)/rubert-lite classify runs/toy/package -

loadtest: $(VENV)/.dev $(VENV)-load/.done  ## the server on one core, open load on another, limits checked
	PYTHON=$(BIN)/python LOCUST=$(VENV)-load/bin/locust loadtest/run $(PROFILE)

loadtest-peers: $(VENV)/.dev $(VENV)-load/.done $(VENV)-peers/.done  ## our server against two others over the same weights
	loadtest/peers

overhead: $(VENV)/.dev  ## what the server adds to encode, one text at a time
	$(BIN)/python loadtest/overhead.py

bench: $(VENV)/.dev $(VENV)-bench/.done  ## ours and the peers: one table, one plot, runs/bench/*.json
	$(BIN)/python loadtest/bench.py --python $(VENV)-bench/bin/python

gpu: $(VENV)-gpu/.done $(VENV)-load/.done  ## what needs a GPU: tests, benchmark, load test
	PYTHON=$(VENV)-gpu/bin/python LOCUST=$(VENV)-load/bin/locust loadtest/gpu

gpu-train: $(VENV)-gpu/.done  ## on a GPU: the teachers, the released students, the comparison, side by side
	$(VENV)-gpu/bin/python -m train.gpu

roofline: $(VENV)/.dev  ## what the machine could do, and how far the int8 graph is from it
	$(BIN)/python loadtest/roofline.py

soak: $(VENV)/.dev  ## ten minutes of random lengths: memory must stay flat
	$(BIN)/python loadtest/soak.py

openapi: $(VENV)/.dev  ## write the document of the routes anew
	$(BIN)/python -c "from serve.app import *; import sys; sys.stdout.buffer.write(write_document(list_endpoints(Settings())))" > serve/openapi.json

build: $(VENV)/.dev  ## wheel and sdist in dist/
	rm -rf build  # setuptools would pack what a former tree left there
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Locust brings gevent, which must not meet torch or onnxruntime: an environment of its own.
$(VENV)-load/.done: constraints.txt
	$(PYTHON) -m venv $(VENV)-load
	$(VENV)-load/bin/python -m pip install --quiet -c constraints.txt locust matplotlib numpy
	touch $@

# Servers that are measured beside ours want older libraries.
$(VENV)-peers/.done:
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet "torch==2.13.0" "infinity-emb[server,torch,optimum]==0.0.78" fastapi uvicorn
	touch $@

# onnxruntime-gpu and onnxruntime are one module: an environment of its own, with the torch of CUDA.
$(VENV)-gpu/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)-gpu
	$(VENV)-gpu/bin/python -m pip install --quiet -e ".[gpu,train,export,serve,dev]" sentence-transformers
	touch $@

# Peers that our own environment has no use for.
$(VENV)-bench/.done:
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet "torch==2.13.0" "transformers==4.57.6" openvino nncf ctranslate2 fastembed
	touch $@

# setuptools warns of editable installations at length: what looks like a failure is none.
$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cpu]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(DEV)]"
	touch $@ $(VENV)/.run
