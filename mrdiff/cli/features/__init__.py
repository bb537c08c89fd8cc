"""``mrdiff features``."""
