"""For other people's trainings: `Tracker`, and what they have already, with the whole of it behind: one changed line.

Its faces are `tracker.Tracker` and `summary_writer.SummaryWriter`. Each other file is for one framework, and is
imported only when it is asked for. It knows nothing of this network.
"""
