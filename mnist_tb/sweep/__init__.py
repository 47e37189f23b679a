"""A search over configurations: many runs, on any number of processes and machines.

A trial is a point of the search space; each of its seeds is a normal run in a folder of its own. Optuna chooses the
points and keeps the trials; nothing that is known of them is anywhere else. https://optuna.readthedocs.io/
"""
