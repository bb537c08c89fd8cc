"""``mrdiff convert``."""
