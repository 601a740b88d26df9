"""Evidence for the documentation: measure, then print. ``python -m benchmarks`` from the root of the repository.

Nothing in the package depthsched knows of it. Each experiment is one function that returns a JSON object, and
``pages`` prints what was kept of them; ``evidence`` lists which of them the documentation needs.
"""
