"""Train, val and test as sorted row numbers: seeded, disjoint, and with each class in proportion."""

import numpy as np

from compressor.config import DatasetConfig
from compressor.errors import DataError

TEST_SHARE = 0.2
"""Of a set without parts of its own; a quarter of the rest is val, which makes 60/20/20."""


def split(parts: dict[str, int], targets: np.ndarray, config: DatasetConfig) -> dict[str, np.ndarray]:
    """Give the rows of train, val and test. `parts` are the sizes of the set's own parts in the order of the rows."""
    groups = targets if targets.ndim == 1 else np.zeros(len(targets), np.int64)
    ends = np.cumsum(list(parts.values()))
    rows = {name: np.arange(end - parts[name], end) for name, end in zip(parts, ends, strict=True)}
    share = 0.1
    if "all" in rows:
        rows["test"], rows["train"] = _cut(rows.pop("all"), groups, TEST_SHARE, config.seed, 0)
        share = 0.25
    if config.val != "auto" and "val" in rows:
        rows["train"] = np.union1d(rows["train"], rows.pop("val"))
    if config.val == "test_half":
        rows["val"], rows["test"] = _cut(rows["test"], groups, 0.5, config.seed, 1)
    elif "val" not in rows:
        share = share if config.val == "auto" else float(config.val)
        rows["val"], rows["train"] = _cut(rows["train"], groups, share, config.seed, 1)
    for name in ("train", "val", "test"):
        if not len(rows[name]):
            raise DataError(f"dataset {config.name}: no image is left for {name}; add images or change dataset.val")
    return {name: _limited(found, groups, config.limit, config.seed) for name, found in rows.items()}


def pick(groups: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
    """Choose `count` positions, rising, so that each group's share is its share of all (largest remainders)."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    take, remainder = np.divmod(sizes * count, len(groups))
    take[np.argsort(-remainder, kind="stable")[: count - take.sum()]] += 1
    shuffled = random.permutation(len(groups))
    shuffled = shuffled[np.argsort(group[shuffled], kind="stable")]
    place = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(shuffled[place < np.repeat(take, sizes)])


def _cut(rows: np.ndarray, groups: np.ndarray, share: float, seed: int, stage: int) -> tuple[np.ndarray, np.ndarray]:
    count = min(max(1, round(share * len(rows))), len(rows))
    chosen = pick(groups[rows], count, _random(seed, stage))
    return rows[chosen], np.delete(rows, chosen)


def _limited(rows: np.ndarray, groups: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    if limit is None or limit >= len(rows):
        return rows
    return rows[pick(groups[rows], limit, _random(seed, 2))]


def _random(seed: int, stage: int) -> np.random.RandomState:
    """Make a generator whose numbers NumPy keeps the same in every version."""
    return np.random.RandomState([seed & 0xFFFFFFFF, stage])
