"""Streaming statistics of features, in the form of LeRobot's stats.json: bounded memory for any number of episodes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_KEEP = 8192  # rows kept for the quantiles of a whole store


def describe(rows: np.ndarray) -> dict[str, np.ndarray]:
    """min, max, mean, std, count and quantiles of `rows` (T, W), each (W,); count (1,)."""
    values = rows.astype(np.float64)
    stats = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    levels = np.quantile(values, list(QUANTILES.values()), axis=0)
    return stats | {"count": np.array([len(rows)])} | dict(zip(QUANTILES, levels, strict=True))


class RunningStats:
    """Statistics of one feature over a stream of rows. Quantiles come from evenly spaced rows, at most 8,192."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._mean = np.zeros(width)
        self._squares = np.zeros(width)
        self._min = np.full(width, np.inf)
        self._max = np.full(width, -np.inf)
        self._stride = 1
        self._kept: list[np.ndarray] = []
        self._rows = 0

    def add(self, rows: np.ndarray) -> None:
        """Take in `rows` (T, W)."""
        values = rows.astype(np.float64)
        new, mean = len(values), values.mean(0)
        shift, total = mean - self._mean, self.count + new
        # Chan et al. 1983: merge two means and sums of squares without cancellation.
        self._squares += ((values - mean) ** 2).sum(0) + shift**2 * self.count * new / total
        self._mean = self._mean + shift * new / total
        self._min, self._max = np.minimum(self._min, values.min(0)), np.maximum(self._max, values.max(0))
        first = -self.count % self._stride
        kept = rows[first :: self._stride]
        self.count, self._rows = total, self._rows + len(kept)
        self._kept.append(np.array(kept))
        if self._rows > 2 * _KEEP:
            self._thin()

    def result(self) -> dict[str, np.ndarray]:
        """As `describe`, for everything taken in so far."""
        levels = np.quantile(np.concatenate(self._kept).astype(np.float64), list(QUANTILES.values()), axis=0)
        std = np.sqrt(self._squares / self.count)
        stats = {"min": self._min, "max": self._max, "mean": self._mean, "std": std, "count": np.array([self.count])}
        return stats | dict(zip(QUANTILES, levels, strict=True))

    def _thin(self) -> None:
        """Keep every second row, so that kept rows stay those at multiples of the stride."""
        kept = np.concatenate(self._kept)[::2].copy()
        self._kept, self._rows, self._stride = [kept], len(kept), self._stride * 2


def picture_rows(images: np.ndarray) -> np.ndarray:
    """A thin sample of pixels of (T, height, width, 3) uint8 as rows (P, 3) in [0, 1]."""
    step = max(1, images.shape[1] // 32)
    return images[:: max(1, len(images) // 16), ::step, ::step].reshape(-1, 3).astype(np.float64) / 255


def as_lists(stats: Mapping[str, np.ndarray], picture: bool) -> dict[str, list]:
    """JSON form: vectors as lists; statistics of pictures as (3, 1, 1)."""
    return {
        name: (value.reshape(3, 1, 1) if picture and name != "count" else value).tolist()
        for name, value in stats.items()
    }
