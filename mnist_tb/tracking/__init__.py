"""What a training shows of itself: curves, pictures, texts, the graph, the Live tab, the terminal.

Its face is `charts`, for this network. It knows nothing of how an update is computed.
"""
