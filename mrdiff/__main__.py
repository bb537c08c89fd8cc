"""``python -m mrdiff`` is ``mrdiff``."""

import sys

from mrdiff.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
