"""Paired comparisons of plans and backends on one machine."""

from ..stats import Interval
from .compare import compare
from .inputs import bench_inputs
from .results import BenchResult, BenchRow
from .shapes import SHAPES, known_shape, random_model

__all__ = ["SHAPES", "BenchResult", "BenchRow", "Interval", "bench_inputs", "compare", "known_shape", "random_model"]
