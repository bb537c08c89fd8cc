# Two commands on a bare machine with Python 3.11 or newer:
#   make derain   installs, trains derain.yaml for ten minutes, restores rainy photos, makes a comparison picture
#   make test     installs, runs the test suite
PYTHON ?= python3
VENV ?= .venv
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt
RUN := $(shell date +%Y%m%d-%H%M%S)
OUT := out/derain

.PHONY: setup derain test lint smoke clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	touch $@

derain: setup
	$(VENV)/bin/python train.py --config derain.yaml --minutes 10 --trainer.logger.init_args.version $(RUN)
	$(VENV)/bin/python -m datamodules.datasets.demo $(OUT)/photos
	$(VENV)/bin/python sample.py --checkpoint runs/derain/$(RUN)/checkpoints/best.ckpt \
		--input $(OUT)/photos/LQ --reference $(OUT)/photos/GT --output $(OUT)/restored --compare

test: setup
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy mrdiff

smoke: setup
	$(VENV)/bin/python -m benchmarks.gpu --smoke --device cpu

clean:
	rm -rf $(VENV) build *.egg-info
