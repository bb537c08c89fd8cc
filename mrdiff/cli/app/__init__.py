"""``mrdiff app``."""
