"""The runtime: executes a plan on a model through an adapter. Knows nothing of what is to its right."""
