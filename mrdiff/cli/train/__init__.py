"""``mrdiff train``."""
