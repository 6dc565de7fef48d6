"""A cache of cases that is filled when it is needed, not when it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.data import CacheDataset

__all__ = ["DeferredCacheDataset"]


class DeferredCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset``, filled by `fill` or at the first item asked for, and emptied by `release`.

    For a stage whose preprocessing reads what an earlier stage leaves: the components of a config are made before any
    stage is trained, by callers that only look at them too. :class:`~common.engines.stage_trainer.StageTrainer` fills
    it before its first epoch, in the main process, so that workers share the cache. `release` makes room for the cache
    of the next stage.

    Args:
        data: cases.
        transform: as of ``CacheDataset``.
        kwargs: as of ``CacheDataset``.
    """

    def __init__(self, data: Sequence[Any], transform: Sequence[Callable] | Callable | None = None, **kwargs: Any):
        super().__init__([], transform, **kwargs)
        self._waiting: Sequence[Any] | None = data
        self.data = list(data)

    def fill(self) -> None:
        """Run the deterministic steps of the cases that are to be kept; nothing where that is done."""
        if self._waiting is not None:
            self.set_data(self._waiting)

    def release(self) -> None:
        """Give the memory of the cache back; it is filled again when it is needed again."""
        self._waiting, self._cache = self.data, []

    def set_data(self, data: Sequence[Any]) -> None:
        """Take other cases, and fill the cache with them."""
        super().set_data(data)
        self._waiting = None

    def _transform(self, index: int) -> Any:
        self.fill()
        return super()._transform(index)
