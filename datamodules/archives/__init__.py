"""Archives of the standard benchmarks, unpacked into the folders that training reads."""
