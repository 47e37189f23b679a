"""A search over configurations: many runs, in any number of processes and on any number of machines.

A trial is a point of the search space; each of its seeds is an ordinary run in its own folder. Optuna chooses the
points and stores the trials; nothing about them is kept anywhere else. https://optuna.readthedocs.io/

Its face is `pool.sweep`. It does not know the command line, except where `worker` is started as a program.
"""
