"""Train a model: ``python train.py --config derain.yaml``. The same as ``mrdiff train``."""

import sys

from mrdiff.cli.train.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], program="train.py"))
