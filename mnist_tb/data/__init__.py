"""Datasets as tensors in memory: downloaded, read and checked, split, cut into batches, augmented; and users' pictures.

Its face is `datasets.load_dataset`. It knows the configuration, and neither networks nor runs.
"""
