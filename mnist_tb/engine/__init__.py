"""How one update is computed, near the machine's limit: step, optimiser, kernels, CUDA graphs, several processes.

Its face is `train_step`. It knows neither runs nor tracking: tensors in, tensors out.
"""
