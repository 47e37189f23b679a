"""What a training shows of itself: curves, pictures, texts, the graph, the Live tab, the terminal.

Its faces are `charts`, for this network, and `recording`, for the trainings of others. It knows nothing of how an
update is computed.
"""
