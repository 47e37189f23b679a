"""One training on several processes or machines: those that torchrun starts, each with its part of every batch.

What DistributedDataParallel does to the gradients of a network's parameters is done here to the one vector that holds
them all, one all-reduce an update: the mean over the whole batch, whatever the number of processes. Everything else is
the same in each of them; the first one alone writes. https://docs.pytorch.org/docs/stable/elastic/run.html

Imports torch where processes meet, not before.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mnist_tb.errors import InputError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_SILENCE = 600
"""Seconds for which a process may keep the others waiting, beyond a download."""


def is_first() -> bool:
    """Whether this process is the one that speaks and writes: the only one, or torchrun's first."""
    return not is_one_of_several() or os.environ["RANK"] == "0"


def is_one_of_several() -> bool:
    """Whether torchrun has started this process, and others."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


class PeerError(TrainingError):
    """Another process of the training has ended, or does not answer."""


class Team:
    """The processes of one training, seen from one of them.

    rank: which one this is, from 0. size: how many there are. local: which one it is on its machine.
    Where one does not answer any more, all methods raise PeerError.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0) -> None:
        self.rank, self.size, self.local = rank, size, local
        self._stop = False
        self._agreed = False

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of `count` things, in order, are this process's; no two parts differ by more than one thing."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add_up(self, gradient: Tensor, loss: Tensor, hits: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Turn a part's mean gradient, float32 [P], in place, and mean loss, into those of the whole batch.

        hits: of the part, become the batch's. share: of the batch that the part is, 0 to 1.
        """
        if self.size == 1:
            return loss, hits
        import torch
        from torch import distributed

        numbers = torch.stack([loss * share, hits.float(), torch.full_like(loss, float(self._stop))])
        whole = torch.cat([gradient * share, numbers])
        with _peers():
            distributed.all_reduce(whole)
        gradient.copy_(whole[:-3])
        self._agreed = bool(whole[-1] > 0)
        return whole[-3], whole[-2].long()

    def agree_to_stop(self, wish: bool) -> bool:
        """Whether to stop after this update. All processes stop after the same one: one's wish is heard in the next."""
        if self.size == 1:
            return wish
        self._stop = wish
        return self._agreed

    def gather(self, part: Tensor, count: int) -> Tensor:
        """The rows of all processes' parts of `count` rows, float32 [n, C], in order: float32 [count, C]."""
        if self.size == 1:
            return part
        import torch
        from torch import distributed

        longest = -(-count // self.size)
        padded = part.new_zeros(longest, part.shape[1])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with _peers():
            distributed.all_gather(parts, padded)
        lengths = [len(range(count)[Team(rank, self.size).part(count)]) for rank in range(self.size)]
        return torch.cat([rows[:length] for rows, length in zip(parts, lengths, strict=True)])

    def by_first(self, work: Callable[[], T]) -> T:
        """What the first process makes of some work, in all of them; an InputError or TrainingError of its too."""
        if self.size == 1:
            return work()
        from torch import distributed

        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = work()
            except (InputError, TrainingError) as error:
                told[1] = error
        with _peers():
            distributed.broadcast_object_list(told)
        if told[1] is not None:
            told[1].told = not self.first  # by the first process, that is
            raise told[1]
        return told[0]  # type: ignore[no-any-return]

    def in_turn(self, work: Callable[[], T]) -> T:
        """Some work that leaves files, such as a download: by one process of each machine, then by the others."""
        made = work() if self.local == 0 else None
        if self.size > 1:
            import torch
            from torch import distributed

            with _peers():
                distributed.all_reduce(torch.zeros(1))
        return work() if made is None else made


ALONE = Team()


@contextmanager
def meet(waiting: int = 0) -> Iterator[Team]:
    """The team that this process is of; it is left at the end.

    waiting: seconds that some of its work may take in one process while the others wait. What is on CPUs goes by gloo,
    what is on GPUs by NCCL. Raises PeerError where the others do not come.
    """
    if not is_one_of_several():
        yield ALONE
        return
    import torch
    from torch import distributed

    rank, size, local = (int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    with _peers():
        distributed.init_process_group(timeout=timedelta(seconds=_SILENCE + waiting))
    yield Team(rank, size, local)
    with suppress(RuntimeError):  # the others may have left by now
        distributed.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    """Turn what torch says of a process that is gone into one sentence.

    And hear no more SIGTERM: torchrun sends it to all as soon as one is gone, and it must not cut short what this
    process has to say and to write; torchrun itself waits half a minute for that.
    """
    try:
        yield
    except RuntimeError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        reason = str(error).strip().splitlines()[0].partition(". ")[0]
        raise PeerError(f"a process of this training has ended, or does not answer: {reason}") from None
