"""TensorBoard's event files: what is written to them, how, and how they are read back, by whatever program.

Its faces are `writer.EventWriter` and `reader.read`. It knows neither this network nor where runs lie.
"""
