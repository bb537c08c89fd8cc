"""``mrdiff sample`` for a clip: frame by frame through PyAV, and all else in it as it was."""
