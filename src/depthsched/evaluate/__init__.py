"""Task scores under a plan, on top of lm-eval (the extra ``eval``): are they those of full depth?"""

from .pooling import Pooled, pooled
from .register import register
from .statistics import Paired, paired

__all__ = ["Paired", "Pooled", "paired", "pooled", "register"]
