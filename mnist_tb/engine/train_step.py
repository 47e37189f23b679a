"""One optimiser update, near the machine's limit: forward pass, backward pass, gradients of all processes, optimiser.

On the CPU by the kernels of `kernels.cpp`, on CUDA as one recorded graph, and by plain torch where neither is possible.
"""

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
from mnist_tb.engine.averaging import AveragedWeights
from mnist_tb.engine.distributed import SINGLE_PROCESS, Distributed
from mnist_tb.engine.optim import VectorOptimizer
from mnist_tb.errors import TrainingError
from mnist_tb.model import CNN

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does on the device, without doing it, and returns a function that does it."""


class TrainStep:
    """One optimiser update per call, of a model whose weights stay in fp32: the master model.

    All parameters are one vector, so that the gradient, the optimiser and the copy in bf16 are one operation each. The
    copy computes, and is refreshed from the master weights after each update: mixed precision as autocast does it, but
    without a cast of every weight in every step.

    compute_model: what runs forward and backward; the master model itself in fp32, else its copy in bf16.
    average: of the weights over the updates, where the configuration asks for one, else None.
    gradient: of the last update, float32 [P]; the gradients of the master model's parameters are views of it.
    """

    def __init__(self, config: Config, model: CNN, dataset: Dataset, distributed: Distributed = SINGLE_PROCESS) -> None:
        """distributed: the processes that share each batch."""
        self._dataset = dataset
        self._distributed = distributed
        self._master_weights, self.gradient = models.flatten(model)
        self.compute_model = models.in_precision(model, config.precision).train()
        is_copy = self.compute_model is not model
        self._compute_weights = models.flatten(self.compute_model)[0] if is_copy else self._master_weights
        self._compute_parameters = list(self.compute_model.parameters())
        self._kernels = kernels.find(self.compute_model)
        self._label_smoothing = config.train.label_smoothing
        self.optimizer = VectorOptimizer(config.optimizer, self._master_weights)
        averaged = config.averaging.name != "none"
        weights = self._master_weights
        self.average = AveragedWeights(config.averaging, model, weights, config.precision) if averaged else None

    def __call__(self, index: Tensor, lr: float | Tensor, transforms: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Update once, on the training images at `index`, int64 [B].

        lr: the learning rate. transforms: float32 [B, 2, K], one for each image, as `augment.warp` takes them.
        Returns the mean loss, float32 [], and the number of correct predictions, int64 [], both from before the update
        and on the device.
        """
        # Each process takes its shard of the batch; afterwards all of them have the whole batch's gradient.
        shard = self._distributed.shard(len(index))
        loss, num_correct = self._backward(index[shard], None if transforms is None else transforms[shard])
        fraction = len(index[shard]) / len(index)
        loss, num_correct = self._distributed.all_reduce(self.gradient, loss, num_correct, fraction)

        # The optimiser moves the master weights, and the copy that computes follows them.
        self.optimizer.step(self.gradient, lr)
        self.refresh()
        return loss, num_correct

    def _backward(self, index: Tensor, transforms: Tensor | None) -> tuple[Tensor, Tensor]:
        """Write the gradient of the mean loss over some images; returns that loss and the number of correct ones."""
        if len(index) == 0:  # a batch of fewer images than processes
            self.gradient.zero_()
            return self.gradient.new_zeros(()), index.new_zeros(())
        if self._kernels is None:
            return self._backward_by_torch(*self._batch(index, transforms, self._compute_weights.dtype))
        if transforms is None:
            data = self._dataset
            inputs = self._kernels.gather(data.train.images, index, *data.scaling)
            labels = data.train.labels.index_select(0, index)
        else:
            inputs, labels = self._batch(index, transforms, torch.float32)
        return self._kernels.step(self._compute_weights, inputs, labels, self.gradient, self._label_smoothing)

    def _batch(self, index: Tensor, transforms: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        change = None if transforms is None else partial(augment.warp, transforms=transforms)
        return self._dataset.train_batch(index, dtype, change)

    def _backward_by_torch(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.compute_model(inputs).float()
        loss = functional.cross_entropy(logits, labels, label_smoothing=self._label_smoothing)
        wanted = [parameter for parameter in self._compute_parameters if parameter.requires_grad]
        found = dict(zip(wanted, torch.autograd.grad(loss, wanted, materialize_grads=True), strict=True))
        gradients = [found[p] if p in found else torch.zeros_like(p) for p in self._compute_parameters]
        torch.cat(models.as_vector(gradients), out=self.gradient)
        return loss.detach(), metrics.num_correct(logits.detach(), labels)

    def refresh(self) -> None:
        """Copy the master weights to the model that computes, where that is a copy."""
        if self._compute_weights is not self._master_weights:
            self._compute_weights.copy_(self._master_weights)

    def tensors(self) -> list[Tensor]:
        """All tensors that an update changes, but for the gradient."""
        return [self._master_weights, self._compute_weights, *self.optimizer.state_dict().values()]


class CudaGraphTrainStep:
    """A `TrainStep` on CUDA, recorded as one CUDA graph and launched by one call.

    On a network as small as this a GPU otherwise waits for the launches of its kernels. A batch of another size than
    the recorded one, such as the last of an epoch, goes through the plain step, on the same weights.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(
        self, step: TrainStep, size: int, device: torch.device, capture: Capture, augmentation: Augment | None = None
    ) -> None:
        """size: of the batches that are recorded. augmentation: where updates get transforms, how large these are."""
        self._step = step
        self.compute_model, self.optimizer, self.average = step.compute_model, step.optimizer, step.average
        self._identity = None if augmentation is None else augment.identity(size, augmentation).to(device)
        self._transforms = None if self._identity is None else self._identity.clone()
        self._index = torch.zeros(size, dtype=torch.int64, device=device)
        self._lr = torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)
        self._num_correct = torch.zeros((), dtype=torch.int64, device=device)
        before = [tensor.clone() for tensor in step.tensors()]
        self._replay = capture(self._update)
        self._check(before[0])
        for tensor, value in zip(step.tensors(), before, strict=True):  # undo what has been changed
            tensor.copy_(value)

    @property
    def gradient(self) -> Tensor:
        """As in `TrainStep`."""
        return self._step.gradient

    def __call__(self, index: Tensor, lr: float, transforms: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As in `TrainStep`."""
        self._lr.fill_(lr)
        if len(index) != len(self._index):
            return self._step(index, self._lr, transforms)
        self._index.copy_(index)
        if self._transforms is not None and self._identity is not None:
            self._transforms.copy_(self._identity if transforms is None else transforms)
        self._replay()
        return self._loss.clone(), self._num_correct.clone()

    def _check(self, weights: Tensor) -> None:
        """Raise TrainingError where a replay does not change the weights: what another device recorded is empty."""
        master = self._step.tensors()[0]
        master.copy_(weights)
        self._lr.fill_(1.0)
        self._replay()
        if torch.equal(master, weights):
            raise TrainingError(
                f"the CUDA graph of an update is empty on {self._lr.device}: the network would not learn"
            )

    def refresh(self) -> None:
        """As in `TrainStep`."""
        self._step.refresh()

    def _update(self) -> None:
        loss, num_correct = self._step(self._index, self._lr, self._transforms)
        self._loss.copy_(loss)
        self._num_correct.copy_(num_correct)


def record_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """A `Capture` by a CUDA graph on the current device, after three runs in which libraries initialise themselves."""
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


def build_train_step(
    config: Config, model: CNN, dataset: Dataset, distributed: Distributed = SINGLE_PROCESS
) -> TrainStep | CudaGraphTrainStep:
    """The fastest train step for the device that the dataset is on."""
    step = TrainStep(config, model, dataset, distributed)
    device, size = dataset.train.labels.device, config.train.batch_size
    if device.type != "cuda" or len(dataset.train) < size or distributed.size > 1:
        return step
    return CudaGraphTrainStep(step, size, device, record_cuda_graph, config.augment if config.augment.enabled else None)
