"""What other people's trainings already have, with the whole of `Tracker` behind it: one changed line.

Its face is `summary_writer.SummaryWriter`. Each file is for one of them, and is imported only when it is asked for. It
knows nothing of this network.
"""
