"""The Live page for a terminal: runs of any program as they change, their states, their progress, their charts.

Its face is `page.show_page`, over `live.LiveRuns`. It knows run folders and event files, nothing of how they are made.
"""
