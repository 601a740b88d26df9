"""A plan as its own drafter: it proposes tokens, full depth checks several of them in one pass.

What comes out is what full depth alone would have written: with greedy decoding the same tokens, with sampling the same
distribution. :mod:`.accept` decides which tokens stay, :mod:`.drafting` how many are proposed, :mod:`.loop` is the run.
"""

from .arguments import check_lossless, drafting_backend
from .drafting import drafting_of
from .loop import LosslessLoop

__all__ = ["LosslessLoop", "check_lossless", "drafting_backend", "drafting_of"]
