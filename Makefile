# make demo: a video from the shipped workflow on a real ComfyUI. make test: every test that is not slow.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# One thread for each worker. A worker keeps the files that it begins, and with them their host.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --durations=25

.PHONY: demo test test-slow test-hosts bench bench-gpu lint evaluate evaluate-schedules evaluate-endpoints workflows clean

demo: $(VENV)/.host
	@$(BIN)/python -m tools.demo $(ARGS)

test: $(VENV)/.test lint
	$(PYTEST) -m "not slow and not gpu" $(ARGS)

test-slow: $(VENV)/.test
	$(PYTEST) -m slow $(ARGS)

test-hosts: $(VENV)/.test
	$(BIN)/python -m tools.hosts $(HOSTS) $(ARGS)

bench: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(VENV)/.test
	$(BIN)/python -m benchmarks.gpu $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

evaluate: $(VENV)/.host
	$(BIN)/python -m framepack.shapes.evaluate $(ARGS)

evaluate-schedules: $(VENV)/.host
	$(BIN)/python -m framepack.shapes.evaluate_schedules $(ARGS)

evaluate-endpoints: $(VENV)/.host
	$(BIN)/python -m framepack.shapes.evaluate_endpoints $(ARGS)

workflows: $(VENV)/.host
	$(BIN)/python -m tools.shipped

# torch alone by version first: every other package then takes the build that is there.
$(VENV)/.host: tools/requirements-host.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it: make PYTHON=python3.11")'
	@echo "Installing into $(VENV) (some minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.13.0
	@$(PIP) --no-deps torchvision==0.28.0
	@$(PIP) -r $<
	@touch $@

$(VENV)/.test: tools/requirements-test.txt $(VENV)/.host
	@echo "Installing what the tests need ..."
	@$(PIP) -r $<
	@touch $@

clean:
	rm -rf $(VENV) .cache
