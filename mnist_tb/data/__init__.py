"""Datasets as tensors in memory: downloaded, read, checked, split, cut into batches, augmented; and anybody's pictures.

Its face is `datasets.load`. It knows the configuration, and neither networks nor runs.
"""
