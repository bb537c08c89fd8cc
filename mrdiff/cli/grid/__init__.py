"""``mrdiff grid``."""
