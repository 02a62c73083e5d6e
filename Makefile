# make demo: a video from the shipped workflow on a real ComfyUI. make test: every test that is not slow.
# Without make: python -m tools.demo, python -m tools.test.
PYTHON ?= python3
BIN := .venv/bin
GPU_PYTHON ?= $(PYTHON)

.PHONY: demo test test-slow test-hosts fuzz soak bench bench-gpu gpu-check gpu-payload lint evaluate evaluate-schedules evaluate-endpoints drift-study workflows mutate clean host-env test-env

demo: host-env
	@$(BIN)/python -m tools.demo $(ARGS)

test: test-env
	@$(BIN)/python -m tools.test $(ARGS)

test-slow: test-env
	@$(BIN)/python -m tools.test -m slow $(ARGS)

# The host and browser tests against other ComfyUI checkouts: make test-hosts HOSTS="dir ...".
test-hosts: test-env
	@OMP_NUM_THREADS=1 $(BIN)/python -m tools.hosts $(HOSTS) $(ARGS)

# Random input for everything that takes input, at full length: make fuzz ARGS="plans --num 1000".
fuzz: test-env
	@OMP_NUM_THREADS=1 $(BIN)/python -m tools.fuzz $(ARGS)

# Two hundred queue runs, fifty of them cancelled, on one host: make soak ARGS="--runs 20 --cancels 5".
soak: test-env
	@OMP_NUM_THREADS=1 $(BIN)/python -m tools.soak $(ARGS)

lint: test-env
	@$(BIN)/python -m tools.test --lint

bench: test-env
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(ARGS)

# On a GPU machine; before that, here: make gpu-payload ARGS="--host COMFYUI". Parts: make gpu-check ARGS="parity forward".
gpu-check:
	$(GPU_PYTHON) -m benchmarks.gpu_check run $(ARGS)

gpu-payload: test-env
	$(BIN)/python -m benchmarks.gpu_check prepare $(ARGS)

bench-gpu: test-env
	$(BIN)/python -m benchmarks.gpu $(ARGS)

evaluate: host-env
	$(BIN)/python -m framepack.shapes.evaluate $(ARGS)

evaluate-schedules: host-env
	$(BIN)/python -m framepack.shapes.evaluate_schedules $(ARGS)

evaluate-endpoints: host-env
	$(BIN)/python -m framepack.shapes.evaluate_endpoints $(ARGS)

# Hours; it resumes. The reduced form: make drift-study ARGS="--clips 4".
drift-study: test-env
	OMP_NUM_THREADS=1 $(BIN)/python -m framepack.shapes.study --report docs/drift-study.md $(ARGS)

workflows: host-env
	$(BIN)/python -m tools.shipped

# Mutation testing of the modules that need no torch; docs/testing.md has the figures.
MUTATE := .cache/mutate
mutate: test-env
	@test -d $(MUTATE)/mutmut || $(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(MUTATE) -r tools/requirements-mutate.txt
	PYTHONPATH=.:$(MUTATE) nice -n 10 $(BIN)/python -m mutmut run --max-children 2 $(ARGS)
	PYTHONPATH=.:$(MUTATE) $(BIN)/python -m mutmut results

# The virtual environment in .venv, made once and again where the requirements change.
host-env test-env: %-env:
	@$(PYTHON) -m tools.environment $* > /dev/null

clean:
	rm -rf .venv .cache
