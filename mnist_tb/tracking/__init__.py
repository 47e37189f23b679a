"""What a training shows of itself: curves, pictures, texts, the graph, the Live tab, the terminal; and `Tracker`.

Its faces are `tracker.Tracker`, for anybody's training, and `charts`, for this network's. It knows nothing of how an
update is computed.
"""
