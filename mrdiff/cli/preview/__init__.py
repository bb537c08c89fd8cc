"""``mrdiff preview``."""
