"""The command line: parse, call one function, print one summary. Nothing in the package imports it.

Its face is `main.main`.
"""
