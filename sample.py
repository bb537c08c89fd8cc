"""Restore photos: ``python sample.py --checkpoint FILE --input DIR --output DIR``.

The same as ``mrdiff sample``.
"""

import sys

from mrdiff.cli.sample.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], program="sample.py"))
