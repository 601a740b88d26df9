"""Side by side: OpenVINO GenAI, llama.cpp and depthsched on the same file, prompt and length.

``environment`` makes the environment of the peers, ``variants`` lists what takes part, ``worker`` is the process that
one of them lives in (it imports nothing of depthsched unless that is what it runs), ``measure`` lets them run in turns
and ``summary`` makes rows of it. ``benchmarks.pages.peers`` prints the page.
"""
