"""``mrdiff sweep``."""
