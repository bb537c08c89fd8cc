"""``mrdiff quantize``."""
