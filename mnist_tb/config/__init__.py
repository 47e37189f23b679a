"""What decides a run: the schema of a configuration, and how YAML files and options become one.

Its face is `load.load`. It knows nothing of what is trained by it: it imports nothing of the package but `errors`.
"""
