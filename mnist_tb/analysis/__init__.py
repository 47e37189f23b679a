"""Comparisons of runs: which is better, whether the difference is significant, as tables and as a report.

Its face is `compare.compare`. It imports no torch: all that it knows of runs it reads from their folders.
"""
