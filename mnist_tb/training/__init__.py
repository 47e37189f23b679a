"""What surrounds the loop: state and checkpoints, the means of a window of updates, signals, results, inference.

Its faces are `context.TrainingContext` and `state.State`. It does not know the loop, which is `mnist_tb.train`.
"""
