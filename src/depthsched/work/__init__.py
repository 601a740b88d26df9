"""Work in pieces, in this process or on the workers of a Ray cluster.

The pieces are the same in both, and their results come in their order: what is added up is added in the same order.
:mod:`.pieces` is the interface and this process, :mod:`.cluster` is Ray, :mod:`.message` is what goes over the wire,
:mod:`.source` is a model's name.
"""
