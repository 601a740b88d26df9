"""A model on several devices: the processes that ``torchrun`` started, each with its shard of every layer.

:mod:`.launch` says what was started and knows no torch, :mod:`.ranks` is what the ranks agree on, :mod:`.watch` ends
all of them when one ends, :mod:`.load` and :mod:`.shards` are the model's weights.
"""
