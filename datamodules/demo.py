"""Write the demo photos, spoilt, and the originals: ``python -m datamodules.demo FOLDER``.

All under synthetic rain, or ``--mixed`` each under another degradation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from datamodules.datasets.demo import write_demo, write_mixed
from datamodules.errors import DataError
from mrdiff.photo import PhotoError


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m datamodules.demo FOLDER [--mixed] [--size N] [--seed N]``."""
    program = "python -m datamodules.demo"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("folder", help="where LQ/ and GT/ are written")
    parser.add_argument("--size", type=int, default=384, help="side of the photos in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the degradation")
    parser.add_argument("--mixed", action="store_true", help="each photo under another degradation")
    options = parser.parse_args(arguments)
    try:
        write = write_mixed if options.mixed else write_demo
        names = write(options.folder, size=options.size, seed=options.seed)
    except (DataError, PhotoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(names)} photos in {options.folder}/LQ and {options.folder}/GT: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
