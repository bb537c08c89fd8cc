"""``mrdiff export``."""
