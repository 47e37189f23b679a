"""What surrounds a training: its code and packages, the machine, what it prints, and who is told how it ends.

Its faces are `log.EnvironmentLog` and `snapshot.read_environment`. It knows no training; all of
it may fail without harm to one.
"""
