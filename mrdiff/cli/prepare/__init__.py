"""``mrdiff prepare``."""
