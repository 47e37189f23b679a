"""Train a small CNN on MNIST, tracked with TensorBoard."""

__version__ = "0.1.0"
