"""What decides a run: the schema of a configuration, and how YAML files and options become one.

Its face is `load.load_config`. It knows nothing of what is trained by it: of the package it imports only `errors`.
"""
