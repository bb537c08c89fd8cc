"""Checkpoints that need nothing but themselves: description, reading, checks, export."""
