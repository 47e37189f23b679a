"""Run folders: made, found, listed, read back, renamed and removed.

Its faces are `folder.Run` and `query`. It imports no torch, and does not know how a run is trained.
"""
