"""The checks of ``mrdiff doctor``, a module a concern; each returns findings and prints nothing."""
