"""Data-parallel training on several processes or machines, started by torchrun: each takes a shard of every batch.

What DistributedDataParallel does to the gradients of a model's parameters is done here to the one vector that holds
them all, by one all-reduce an update: the mean over the whole batch, whatever the number of processes. All processes do
the same; the main process alone writes. https://docs.pytorch.org/docs/stable/elastic/run.html

Imports torch when the processes meet, not before.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mnist_tb.errors import InputError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_TIMEOUT_SECONDS = 600
"""How long a process may keep the others waiting, beyond a download."""
_SECONDS_AFTER_SIGNAL = 10
"""How long it may once SIGTERM has come: torchrun sends that when a process has ended, and kills after 30 s."""
_UPDATES_BETWEEN_VOTES = 10
"""On GPUs. All processes count the same updates, so all of them stop after the same one."""


def is_main_process() -> bool:
    """Whether this process prints and writes: it is the only one, or torchrun's rank 0."""
    return not is_distributed() or os.environ["RANK"] == "0"


def is_distributed() -> bool:
    """Whether torchrun has started this process, and others."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


class PeerError(TrainingError):
    """Another process of the training has ended, or does not answer."""


class Distributed:
    """The processes of one training, as one of them sees them.

    rank: the number of this process, from 0. size: how many processes there are. local_rank: its number on its machine.
    All methods raise PeerError where another process has ended or does not answer.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, has_signal: Callable[[], bool] = lambda: False
    ) -> None:
        """has_signal: whether Ctrl-C or SIGTERM has come."""
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._has_signal = has_signal
        self._wants_to_stop = False
        self._should_stop = False
        self._updates = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's shard of `count` items, in order; no two shards differ by more than one item."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce(self, gradient: Tensor, loss: Tensor, num_correct: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        """Turn a shard's mean gradient, float32 [P], in place, and mean loss into those of the whole batch.

        num_correct: of the shard; the batch's is returned. fraction: of the batch that the shard is, 0 to 1.
        """
        if self.size == 1:
            return loss, num_correct
        import torch
        from torch import distributed as dist

        numbers = torch.stack([loss * fraction, num_correct.float(), torch.full_like(loss, float(self._wants_to_stop))])
        total = torch.cat([gradient * fraction, numbers])
        with _peer_errors():
            dist.all_reduce(total)
        gradient.copy_(total[:-3])
        self._updates += 1
        if not total.is_cuda or self._updates % _UPDATES_BETWEEN_VOTES == 0:  # to read it is to wait for the device
            if total.is_cuda:
                with _peer_errors():
                    self._wait_for_gpu()
            self._should_stop = bool(total[-1] > 0)
        return total[-3].clone(), total[-2].long()  # a view would keep the whole vector

    def _wait_for_gpu(self) -> None:
        """Wait until the GPU has done what it was given. Raises RuntimeError where another process does not take part.

        NCCL, unlike gloo, does not notice that, and whoever waits for the GPU in one of torch's calls hears no signal.
        """
        from torch import cuda
        from torch.distributed import distributed_c10d

        done = cuda.Event()
        done.record()
        limit = time.monotonic() + _TIMEOUT_SECONDS
        while not done.query():
            now = time.monotonic()
            if self._has_signal():
                limit = min(limit, now + _SECONDS_AFTER_SIGNAL)
            if now > limit:
                distributed_c10d._abort_process_group()
                raise RuntimeError("the GPU has waited in vain for the sum of all gradients")
            time.sleep(100e-6)

    def sync_stop(self, wants_to_stop: bool) -> bool:
        """Whether to stop after this update.

        All processes stop after the same update: a wish travels with the all-reduce of the next one.
        """
        if self.size == 1:
            return wants_to_stop
        self._wants_to_stop = wants_to_stop
        return self._should_stop

    def gather(self, shard: Tensor, count: int) -> Tensor:
        """The rows of all shards of `count` rows, float32 [n, C], in order: float32 [count, C]."""
        if self.size == 1:
            return shard
        import torch
        from torch import distributed as dist

        longest = -(-count // self.size)
        padded = shard.new_zeros(longest, shard.shape[1])
        padded[: len(shard)] = shard
        shards = [torch.empty_like(padded) for _ in range(self.size)]
        with _peer_errors():
            dist.all_gather(shards, padded)
        lengths = [len(range(count)[Distributed(rank, self.size).shard(count)]) for rank in range(self.size)]
        return torch.cat([rows[:length] for rows, length in zip(shards, lengths, strict=True)])

    def broadcast_from_main(self, work: Callable[[], T]) -> T:
        """Do some work in the main process, and return its result in all of them.

        An InputError or TrainingError there is raised in all of them too.
        """
        if self.size == 1:
            return work()
        from torch import distributed as dist

        result: list[Any] = [None, None]  # what it is, or the error
        if self.is_main:
            try:
                result[0] = work()
            except (InputError, TrainingError) as error:
                result[1] = error
        with _peer_errors():
            dist.broadcast_object_list(result)
        if result[1] is not None:
            result[1].said_by_main = not self.is_main
            raise result[1]
        return result[0]  # type: ignore[no-any-return]

    def local_main_process_first(self, work: Callable[[], T]) -> T:
        """Do some work that leaves files, such as a download, in one process of each machine, then in the others."""
        done = work() if self.local_rank == 0 else None
        if self.size > 1:
            import torch
            from torch import distributed as dist

            with _peer_errors():
                dist.all_reduce(torch.zeros(1))
        return work() if done is None else done


SINGLE_PROCESS = Distributed()


@contextmanager
def init_distributed(has_signal: Callable[[], bool], extra_seconds: int = 0) -> Iterator[Distributed]:
    """Join the other processes that torchrun has started, and leave them at the end.

    has_signal: as in `Distributed`. extra_seconds: for which one process may work alone, beyond the usual limit, while
    the others wait. CPUs use gloo, GPUs NCCL. Raises PeerError where the others do not come.
    """
    if not is_distributed():
        yield SINGLE_PROCESS
        return
    import torch
    from torch import distributed as dist

    rank, size, local_rank = (int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    with _peer_errors():
        dist.init_process_group(timeout=timedelta(seconds=_TIMEOUT_SECONDS + extra_seconds))
    yield Distributed(rank, size, local_rank, has_signal)
    with suppress(RuntimeError):  # the others may have left by now
        dist.destroy_process_group()


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Turn torch's errors about a lost process into one sentence, and ignore SIGTERM from then on.

    torchrun sends that to all processes as soon as one has ended, and it must not cut short what this one has to say
    and to write; torchrun itself waits half a minute for that.
    """
    try:
        yield
    except RuntimeError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        reason = str(error).strip().splitlines()[0].partition(". ")[0]
        raise PeerError(f"a process of this training has ended, or does not answer: {reason}") from None
