"""Settings of a calibration."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SettingsError

ORDERS = ("block", "ranked")


@dataclass(frozen=True)
class Options:
    """Settings of a calibration.

    Attributes
    ----------
    min_depth : int or None
        Lowest depth to make bridges for; ``None``: half of the layers.
    orders : tuple of str
        Kinds of order to try: ``block`` (one growing block), ``ranked`` (one layer after another).
    corrections : int
        A correction in front of every so many kept layers above the skipped ones; 0: none.
    held_out : float
        Share of the prompts that judge, and that no bridge is fitted on; at most 24 prompts.
    seed : int
        Draws which prompts judge.
    """

    min_depth: int | None = None
    orders: tuple[str, ...] = ORDERS
    corrections: int = 4
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.orders or set(self.orders) - set(ORDERS):
            raise SettingsError(f"orders {', '.join(self.orders) or 'none'}: give one or both of {', '.join(ORDERS)}")
        if self.corrections < 0:
            raise SettingsError(f"corrections={self.corrections} must be at least 0")
        if not 0 < self.held_out < 1:
            raise SettingsError(f"held_out={self.held_out} must be in (0, 1)")

    def drops(self, layers: int) -> int:
        """Layers to drop at the lowest depth; the first and the last layer always run."""
        lowest = self.min_depth if self.min_depth is not None else (layers + 1) // 2
        if not 1 <= lowest < layers:
            raise SettingsError(f"min depth {lowest} must be between 1 and {layers - 1}")
        return min(layers - lowest, layers - 2)
