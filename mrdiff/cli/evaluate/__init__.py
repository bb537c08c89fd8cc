"""``mrdiff evaluate``."""
