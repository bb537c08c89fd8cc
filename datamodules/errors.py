"""The one error that data raises: a line that names the file and says what to do."""

from __future__ import annotations

from collections.abc import Sequence


class DataError(ValueError):
    """Images that cannot be used: the message names them and says what to do."""

    def __init__(self, message: str) -> None:
        # A loader's worker hands an error on as text: a traceback that ends with the message.
        shown = message.rpartition(f"{__name__}.DataError: ")[2]
        super().__init__(" ".join(shown.split()))
        if shown != message:
            self.add_note(message)


def report(problems: Sequence[str], *, what: str, shown: int = 10) -> None:
    """Raise one :class:`DataError` listing the first ``shown`` problems; do nothing if none."""
    more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
    if problems:
        raise DataError(f"{what}: {'; '.join([*problems[:shown], *more])}")
