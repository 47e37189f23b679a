"""One optimiser update, near the machine's limit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mnist_tb import metrics
from mnist_tb import model as models
from mnist_tb.config.schema import Augment, Config
from mnist_tb.data import augment
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine import kernels
from mnist_tb.engine.averaging import Average
from mnist_tb.engine.distributed import ALONE, Team
from mnist_tb.engine.optim import VectorOptimizer
from mnist_tb.model import CNN

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does on the device, without doing it, and returns a function that does it."""


class Updater:
    """Takes optimiser updates on a model, whose weights stay in fp32.

    All parameters are one vector, so that the gradient, the optimiser and the copy in bf16 are one operation each. The
    copy computes, and is refreshed from the fp32 weights after each update: what autocast does, without its casts of
    every weight in every step. Forward and backward pass are `kernels` where these can be had, else torch's.

    network: what computes; the same weights as the model, in the configured precision.
    average: of the weights over the updates, where that is configured.
    team: whose processes share each batch out.
    gradient: of the last update, float32 [P]; the gradients of the model's parameters are views of it.
    """

    def __init__(self, config: Config, model: CNN, dataset: Dataset, team: Team = ALONE) -> None:
        self._dataset = dataset
        self._team = team
        self._vector, self.gradient = models.flatten(model)
        self.network = models.in_precision(model, config.precision).train()
        self._computing = self._vector if self.network is model else models.flatten(self.network)[0]
        self._leaves = list(self.network.parameters())
        self._kernels = kernels.find(self.network)
        self._smoothing = config.train.label_smoothing
        self.optimizer = VectorOptimizer(config.optimizer, self._vector)
        averaged = config.averaging.name != "none"
        self.average = Average(config.averaging, model, self._vector, config.precision) if averaged else None

    def __call__(self, index: Tensor, lr: float | Tensor, maps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Update once, on the training images at `index`, int64 [B], each moved by its map (see `augment`).

        Returns the mean loss and the number of right predictions, both from before the update and on the device.
        """
        part = self._team.part(len(index))
        loss, hits = self._differentiate(index[part], None if maps is None else maps[part])
        loss, hits = self._team.add_up(self.gradient, loss, hits, len(index[part]) / len(index))
        self.optimizer.step(self.gradient, lr)
        self.refresh()
        return loss, hits

    def _differentiate(self, index: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gradient of the mean loss over some images; that loss and the number of right predictions."""
        if len(index) == 0:  # a batch of fewer images than processes
            self.gradient.zero_()
            return self.gradient.new_zeros(()), index.new_zeros(())
        if self._kernels is None:
            return self._by_torch(*self._batch(index, maps, self._computing.dtype))
        if maps is None:
            data = self._dataset
            inputs = self._kernels.gather(data.train.images, index, *data.scaling)
            labels = data.train.labels.index_select(0, index)
        else:
            inputs, labels = self._batch(index, maps, torch.float32)
        return self._kernels.step(self._computing, inputs, labels, self.gradient, self._smoothing)

    def _batch(self, index: Tensor, maps: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        change = None if maps is None else partial(augment.move, maps=maps)
        return self._dataset.train_batch(index, dtype, change)

    def _by_torch(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(inputs).float()
        loss = functional.cross_entropy(logits, labels, label_smoothing=self._smoothing)
        gradients = torch.autograd.grad(loss, self._leaves)
        torch.cat(models.as_vector(gradients), out=self.gradient)
        return loss.detach(), metrics.correct_count(logits.detach(), labels)

    def refresh(self) -> None:
        """Have the copy compute with the model's weights of now."""
        if self._computing is not self._vector:
            self._computing.copy_(self._vector)

    def state(self) -> list[Tensor]:
        """All tensors that an update changes, but for the gradient."""
        return [self._vector, self._computing, *self.optimizer.state_dict().values()]


class GraphUpdater:
    """The updates of an `Updater` on CUDA, with every kernel of one recorded in a graph and launched by one call.

    On a network as small as this a GPU waits for the launches otherwise. A batch of another size than the recorded one,
    such as the last of an epoch, takes the way without a graph, through the same weights.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(
        self, updater: Updater, size: int, device: torch.device, capture: Capture, moved: Augment | None = None
    ) -> None:
        """size: of the batches that are recorded. moved: by how much, where updates get maps."""
        self._updater = updater
        self.network, self.optimizer, self.average = updater.network, updater.optimizer, updater.average
        self._still = None if moved is None else augment.still(size, moved).to(device)
        self._maps = None if self._still is None else self._still.clone()
        self._index = torch.zeros(size, dtype=torch.int64, device=device)
        self._lr = torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        before = [tensor.clone() for tensor in updater.state()]
        self._replay = capture(self._update)
        for tensor, value in zip(updater.state(), before, strict=True):  # what warming up has changed
            tensor.copy_(value)

    @property
    def gradient(self) -> Tensor:
        """As in `Updater`."""
        return self._updater.gradient

    def __call__(self, index: Tensor, lr: float, maps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As in `Updater`."""
        self._lr.fill_(lr)
        if len(index) != len(self._index):
            return self._updater(index, self._lr, maps)
        self._index.copy_(index)
        if self._maps is not None and self._still is not None:
            self._maps.copy_(self._still if maps is None else maps)
        self._replay()
        return self._loss.clone(), self._hits.clone()

    def refresh(self) -> None:
        """As in `Updater`."""
        self._updater.refresh()

    def _update(self) -> None:
        loss, hits = self._updater(self._index, self._lr, self._maps)
        self._loss.copy_(loss)
        self._hits.copy_(hits)


def record_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """A `Capture` by a CUDA graph, after three runs of the work in which libraries set themselves up."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def updater(config: Config, model: CNN, dataset: Dataset, team: Team = ALONE) -> Updater | GraphUpdater:
    """The quickest way to update the model on its device."""
    plain = Updater(config, model, dataset, team)
    device, size = dataset.train.labels.device, config.train.batch_size
    if device.type != "cuda" or len(dataset.train) < size or team.size > 1:
        return plain
    return GraphUpdater(plain, size, device, record_cuda_graph, config.augment if config.augment.enabled else None)
