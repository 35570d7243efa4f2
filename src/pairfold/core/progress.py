"""Progress of long work, for people who watch."""

from __future__ import annotations

from collections.abc import Callable


class progress_bar:
    """A tqdm bar over tasks, or nothing when tqdm is not installed."""

    def __init__(self, total: int) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            self.bar = None
        else:
            self.bar = tqdm(total=total, desc="pairfold", unit="task", leave=False)

    def __enter__(self) -> Callable[[int], None]:
        return self._update

    def _update(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()
