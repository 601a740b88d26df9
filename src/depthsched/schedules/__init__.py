"""The built-in schedules. They register through the same manager as every plug-in."""

from .confidence import Confidence
from .constant import Constant
from .d3 import D3
from .full import Full
from .linear import Linear
from .step import Step

BUILTIN = (Full, D3, Constant, Linear, Step, Confidence)

__all__ = ["BUILTIN", "D3", "Confidence", "Constant", "Full", "Linear", "Step"]
