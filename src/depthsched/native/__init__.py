"""The decoder step for CPUs: C++ that is compiled once on a machine, kept in the cache folder, and loaded by ctypes.

:mod:`.build` makes and finds the library, :mod:`.library` calls it, :mod:`.matrix` tells it where weights lie.
"""
