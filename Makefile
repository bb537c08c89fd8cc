# On a bare machine with Python 3.11 or newer:
#   make demo     installs, restores six degraded photos with the bundled model: out/demo/
#   make derain   installs, trains derain.yaml for ten minutes, restores rainy photos, makes a comparison picture
#   make test     installs, runs the test suite
PYTHON ?= python3
VENV ?= .venv
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt
RUN := $(shell date +%Y%m%d-%H%M%S)

.PHONY: setup demo derain test lint docs smoke results clean

setup: $(VENV)/developing

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/developing: $(VENV)/ready
	$(PIP) -e '.[dev]'
	touch $@

demo: $(VENV)/ready
	$(VENV)/bin/python -m datamodules.demo out/demo/photos --mixed
	$(VENV)/bin/mrdiff sample out/demo/photos/LQ --reference out/demo/photos/GT \
		--output out/demo/restored --compare --report out/demo/report.html
	@echo "look at out/demo/report.html, or at the pictures in out/demo/restored/compare"

derain: $(VENV)/ready
	$(VENV)/bin/python train.py --config derain.yaml --minutes 10 --trainer.logger.init_args.version $(RUN)
	$(VENV)/bin/python -m datamodules.demo out/derain/photos
	$(VENV)/bin/python sample.py --checkpoint runs/derain/$(RUN)/checkpoints/best.ckpt \
		--input out/derain/photos/LQ --reference out/derain/photos/GT --output out/derain/restored --compare

test: setup
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy mrdiff callbacks

docs: setup
	$(VENV)/bin/mkdocs build --strict --site-dir build/site

# Every table and figure of README.md and docs/; PAIRS=FOLDER has TASK/{LQ,GT}. Stopped, it goes on.
results: setup
	$(PIP) -e '.[results]'
	$(VENV)/bin/python -m benchmarks.all $(if $(PAIRS),--pairs $(PAIRS))

smoke: setup
	$(VENV)/bin/python -m benchmarks.gpu --smoke --device cpu

clean:
	rm -rf $(VENV) build *.egg-info
