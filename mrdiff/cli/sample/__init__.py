"""``mrdiff sample``."""
