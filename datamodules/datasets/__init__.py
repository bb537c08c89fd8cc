"""Datasets named by ``class_path``: clean photos, pairs, task folders, dead leaves, demo photos."""
