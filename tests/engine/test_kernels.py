"""The compiled network: against autograd on the plain one, to the bit where it can be, and what happens without it."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from helpers.fixtures import Train
from mnist_tb import model as models
from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine import kernels
from mnist_tb.engine.kernels import Kernels
from mnist_tb.engine.train_step import TrainStep
from mnist_tb.evaluate import evaluate
from mnist_tb.model import CNN

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture
def new_search() -> Iterator[None]:
    """Libraries are looked for anew, before and after."""
    kernels._library.cache_clear()
    yield
    kernels._library.cache_clear()


def found(network: CNN, threads: int = kernels.THREADS) -> Kernels:
    kernel = kernels.find(network, threads)
    assert kernel is not None
    return kernel


def batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 28, 28, generator=random), torch.randint(10, (count,), generator=random)


def by_autograd(network: CNN, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = network(inputs)
    loss = functional.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    return logits.detach(), loss.detach(), torch.cat(models.as_vector(gradients))


def by_kernels(
    network: CNN, inputs: Tensor, labels: Tensor, threads: int = kernels.THREADS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernel, parameters = found(network, threads), kernels.vector(network)
    gradient = torch.full((len(parameters),), torch.nan)
    loss, num_correct = kernel.step(parameters, inputs, labels, gradient)
    return kernel.logits(parameters, inputs), loss, gradient, num_correct


@pytest.mark.parametrize("channels", [(16, 32, 64), (32, 16, 48)])
@pytest.mark.parametrize("count", [1, 7, 8, 64, 65, 150])
def test_loss_and_gradient_are_autograds(count: int, channels: tuple[int, int, int]) -> None:
    network = models.build(channels, 1, CPU)
    inputs, labels = batch(count)
    logits, loss, gradient, num_correct = by_kernels(network, inputs, labels)
    expected_logits, expected_loss, expected = by_autograd(network, inputs, labels)
    assert torch.allclose(logits, expected_logits, atol=1e-5)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert num_correct == (expected_logits.argmax(1) == labels).sum()
    assert torch.linalg.vector_norm(gradient - expected) < 1e-5 * torch.linalg.vector_norm(expected)
    assert torch.allclose(gradient, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are registers of x86-64")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
@pytest.mark.usefixtures("new_search")
def test_registers_of_another_width_give_the_same(
    without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on older processors: vectors are as wide as a register, for GCC computes wider ones many times slower."""
    monkeypatch.setattr(kernels, "_FLAGS", (*kernels._FLAGS, without))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = models.build((16, 32, 64), 1, CPU)
    inputs, labels = batch(65)
    logits, _, gradient, _ = by_kernels(network, inputs, labels)
    assert len(list(tmp_path.rglob("kernels-*.so"))) == 1
    expected_logits, _, expected = by_autograd(network, inputs, labels)
    assert torch.allclose(logits, expected_logits, atol=1e-5)
    assert torch.linalg.vector_norm(gradient - expected) < 1e-5 * torch.linalg.vector_norm(expected)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are processors of x86-64")
@pytest.mark.parametrize(
    ("processor", "real"), [("cooperlake", "bf16"), ("skylake-avx512", "float"), ("haswell", "float")]
)
def test_compiles_for_processors_that_are_not_at_hand(processor: str, real: str, compiler: str, tmp_path: Path) -> None:
    """Where it does not, torch takes the kernels' place without a word."""
    flags = ["-march=" + processor if flag == "-march=native" else flag for flag in kernels._FLAGS]
    defined = [f"-DREAL={real}", "-DC1=16", "-DC2=32", "-DC3=64"]
    command = [
        compiler,
        *flags,
        *defined,
        "-Wall",
        "-Werror",
        "-S",
        str(kernels._SOURCE),
        "-o",
        str(tmp_path / "out.s"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "vdpbf16ps" in (tmp_path / "out.s").read_text() or real == "float"


def test_of_equal_pixels_the_first_takes_the_gradient_as_in_torch() -> None:
    """On an image of one grey, poolings choose among equals everywhere."""
    network = models.build((16, 32, 64), 1, CPU)
    inputs, labels = torch.full((3, 1, 28, 28), -0.4), torch.tensor([1, 2, 3])
    _, _, gradient, _ = by_kernels(network, inputs, labels)
    expected = by_autograd(network, inputs, labels)[2]
    assert torch.allclose(gradient, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("channels", [(16, 32, 64), (16, 16, 48)])
def test_bf16_is_as_near_to_fp32_as_torchs_bf16_is(channels: tuple[int, int, int]) -> None:
    network = models.build(channels, 1, CPU)
    rounded = models.in_precision(network, "bf16")
    if kernels.find(rounded) is None:  # no AVX-512 BF16: `precision: auto` chooses fp32 there
        assert not torch.cpu._is_avx512_bf16_supported()
        return
    inputs, labels = batch(64)
    _, loss, expected = by_autograd(network, inputs, labels)
    _, ours, gradient, _ = by_kernels(rounded, inputs, labels)
    logits = rounded(inputs.bfloat16()).float()
    theirs = torch.autograd.grad(functional.cross_entropy(logits, labels), list(rounded.parameters()))
    by_torch = torch.cat(models.as_vector(theirs)).float()
    assert ours.item() == pytest.approx(loss.item(), rel=2e-3)
    norm = torch.linalg.vector_norm
    assert norm(gradient - expected) < 1.2 * norm(by_torch - expected)
    assert norm(gradient - expected) < 0.1 * norm(expected)


def test_the_number_of_threads_changes_no_bit() -> None:
    network = models.build((16, 32, 64), 1, CPU)
    inputs, labels = batch(100)
    single, *others = (by_kernels(network, inputs, labels, threads) for threads in (1, 2, 5, 3))
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(single, other, strict=True))


@pytest.mark.slow
def test_many_calls_by_more_threads_than_cores_come_to_the_same() -> None:
    """Threads that fall asleep, come late, or are called away in the middle of their piece."""
    network = models.build((16, 16, 16), 1, CPU)
    inputs, labels = batch(16)
    expected = by_kernels(network, inputs, labels, 1)
    for call in range(2_000):
        if call % 500 == 0:
            time.sleep(0.002)  # longer than a thread waits before it goes to sleep
        found = by_kernels(network, inputs, labels, 2 + call % 6)
        assert all(torch.equal(one, two) for one, two in zip(expected, found, strict=True))


def test_a_batch_is_brought_to_the_inputs_scale_as_torch_does_it(digits: Dataset) -> None:
    index = torch.tensor([5, 0, 5, 1_000, 17, 3, 2, 1, 0])
    inputs, _ = digits.train_batch(index, torch.float32)
    assert torch.equal(found(CNN()).gather(digits.train.images, index, *digits.scaling), inputs)


@pytest.mark.parametrize("name", [name for name, _ in CNN().named_parameters()])
def test_a_weight_that_is_no_number_is_seen_in_the_loss(name: str) -> None:
    network = models.build((16, 32, 64), 1, CPU)
    parameter = dict(network.named_parameters())[name].data
    parameter[(0,) * parameter.dim()] = torch.nan
    assert by_kernels(network, *batch(9))[1].isnan()


# ---- For which networks they are


def test_the_code_that_the_kernels_compute_is_the_models() -> None:
    """Is this red because you edited model.py? Then torch does the work, at a fifth of the speed.

    If the network computes what it did before, put its fingerprint into kernels.py. If not, kernels.cpp comes first.
    """
    functions = (CNN.__init__, CNN.forward, CNN.features, models.FeatureLinear.forward)
    assert kernels._fingerprint(*(function.__code__ for function in functions)) == kernels._FINGERPRINT


def test_comments_formatting_and_docstrings_are_not_in_the_fingerprint(tmp_path: Path) -> None:
    def fingerprint(text: str) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        names: dict[str, Any] = {}
        exec(compile(text, str(path), "exec"), names)
        return kernels._fingerprint(names["forward"].__code__)

    plain = fingerprint("def forward(self, x):\n    return self.linear(x)\n")
    noted = "def forward(\n    self, x\n):\n    'Words.'\n    # and more\n    return self.linear( x )\n"
    assert fingerprint(noted) == plain != fingerprint("def forward(self, x):\n    return self.linear(x).relu()\n")


def test_they_are_found_for_the_network_and_for_a_subclass_that_adds_nothing() -> None:
    class Same(CNN):
        """Nothing of its own."""

    for network in (CNN(), CNN((16, 16, 16)), Same(), CNN().eval()):
        assert kernels.find(network) is not None
        assert kernels.why_not(network) == ""


def every_relu(kind: Callable[[], nn.Module]) -> Callable[[CNN], object]:
    return lambda network: vars(network)["_modules"].update({name: kind() for name in ("relu1", "relu2", "relu3")})


def pool(**settings: Any) -> Callable[[CNN], object]:
    return lambda network: setattr(network, "pool2", nn.MaxPool2d(2, **settings))


def conv2(size: int = 3, **settings: Any) -> Callable[[CNN], object]:
    return lambda network: setattr(network, "conv2", nn.Conv2d(32, 32, size, **settings))


CHANGES: dict[str, Callable[[CNN], object]] = {
    "ReLU6": every_relu(nn.ReLU6),
    "leaky ReLU": every_relu(nn.LeakyReLU),
    "GELU": every_relu(nn.GELU),
    "its own ReLU": every_relu(type("ReLU", (nn.ReLU,), {"forward": lambda self, x: x.clamp(0, 6)})),
    "average pooling": lambda network: setattr(network, "pool1", nn.AvgPool2d(2)),
    "pooling, dilated": pool(dilation=2, padding=1),
    "pooling, ceil_mode": pool(ceil_mode=True),
    "pooling, changed": lambda network: setattr(network.pool1, "stride", 1),
    "5x5": conv2(5, padding=2),
    "dilation": conv2(padding=2, dilation=2),
    "padding_mode": conv2(padding=1, padding_mode="circular"),
    "no bias": conv2(padding=1, bias=False),
    "nn.Linear": lambda network: setattr(network, "linear", nn.Linear(7 * 7 * 32, 10)),
    "no convolution": lambda network: setattr(network, "conv1", nn.Identity()),
    "lazy": lambda network: setattr(network, "conv1", nn.LazyConv2d(32, 3, padding=1)),
    "shared layer": lambda network: setattr(network, "conv3", network.conv2),
    "shared weight": lambda network: setattr(network.conv3, "weight", network.conv2.weight),
    "one layer more": lambda network: network.add_module("dropout", nn.Dropout()),
    "one parameter more": lambda network: network.register_parameter("scale", nn.Parameter(torch.ones(()))),
    "one buffer more": lambda network: network.register_buffer("scale", torch.ones(())),
    "forward hook": lambda network: network.relu2.register_forward_hook(lambda *given: -given[-1]),
    "forward pre-hook": lambda network: network.conv1.register_forward_pre_hook(lambda _, given: (-given[0],)),
    "backward hook": lambda network: network.relu1.register_full_backward_hook(lambda *given: (-given[1][0],)),
    "gradient hook": lambda network: network.conv1.weight.register_hook(lambda gradient: -gradient),
    "weight norm": lambda network: parametrizations.weight_norm(network.conv2),
    "frozen": lambda network: network.conv1.requires_grad_(False),
    "its own forward": lambda network: setattr(network, "forward", lambda x: -CNN.forward(network, x)),
    "its own features": lambda network: setattr(network, "features", lambda x: [x.new_zeros(len(x), 32, 7, 7)]),
    "a layer's own forward": lambda network: setattr(network.relu1, "forward", torch.sin),
    "compiled": lambda network: setattr(network, "_compiled_call_impl", torch.sin),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_model_that_somebody_has_changed_is_torchs(change: Callable[[CNN], object], dtype: torch.dtype) -> None:
    network = CNN((32, 32, 32))
    assert kernels.find(network) is not None
    change(network)
    assert kernels.find(network.to(dtype)) is None
    assert kernels.why_not(network) == "the kernels compute another network"


def test_other_sizes_dtypes_and_devices_are_torchs() -> None:
    assert "multiples of 16 channels, 128 at most" in kernels.why_not(CNN((4, 5, 6)))
    assert "multiples of 16 channels, 128 at most" in kernels.why_not(CNN((16, 32, 256)))
    two_dtypes = CNN()
    two_dtypes.linear.bfloat16()
    for network in (CNN(classes=7), CNN().to("meta"), CNN().double(), two_dtypes, nn.Linear(784, 10), nn.ReLU()):
        assert kernels.find(network) is None
        assert kernels.why_not(network) == "the kernels compute another network"


FORWARD, FEATURES, LINEAR = CNN.forward, CNN.features, models.FeatureLinear.forward


def detached(self: CNN, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first = self.relu1(self.pool1(self.conv1(x))).detach()
    second = self.relu2(self.pool2(self.conv2(first)))
    return first, second, self.relu3(self.conv3(second))


def clamped(self: CNN, x: Tensor) -> Tensor:
    return FORWARD(self, x).clamp(-5, 5)


@functools.wraps(FORWARD)
def wrapped(self: CNN, x: Tensor) -> Tensor:
    """Its source is the original's, for inspect."""
    return FORWARD(self, x).clamp(-5, 5)


def dropping(self: CNN, x: Tensor) -> Tensor:
    return functional.dropout(FORWARD(self, x), training=self.training)


EDITS: dict[str, tuple[type[nn.Module], str, object]] = {
    "clamp": (CNN, "forward", clamped),
    "wrapped": (CNN, "forward", wrapped),
    "lambda": (CNN, "forward", lambda self, x: -FORWARD(self, x)),
    "no function": (CNN, "forward", torch.sin),
    "without gradients": (CNN, "forward", torch.no_grad()(FORWARD)),
    "dropout": (CNN, "forward", dropping),
    "detach": (CNN, "features", detached),
    "swapped": (CNN, "features", FORWARD),
    "linear": (models.FeatureLinear, "forward", lambda self, x: LINEAR(self, x).clamp(-5, 5)),
    "no bias": (models.FeatureLinear, "bias", None),
    "call": (CNN, "__call__", clamped),
    "getattr": (CNN, "__getattr__", lambda self, name: nn.Module.__getattr__(self, name.replace("2", "1"))),
    "class attribute": (CNN, "relu1", nn.ReLU6()),
    "train": (CNN, "train", lambda self, mode=True: self),
}


@pytest.mark.parametrize(("kind", "name", "value"), EDITS.values(), ids=EDITS)
def test_a_class_that_somebody_has_edited_is_torchs(
    kind: type[nn.Module], name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is CNN:
        assert kernels.find(type("Edited", (CNN,), {name: value})()) is None
    network = CNN()
    assert kernels.find(network) is not None
    monkeypatch.setattr(kind, name, value, raising=False)
    assert kernels.find(network) is None, "also a model that was there before"
    monkeypatch.undo()
    assert kernels.find(network) is not None


def test_a_base_class_of_torchs_own_is_code_too() -> None:
    assert kernels.find(type("Odd", (nn.Sequential, CNN), {})()) is None


def test_hooks_of_all_modules_are_torchs() -> None:
    hook = nn.modules.module.register_module_forward_hook(lambda *given: -given[-1])
    assert kernels.find(CNN()) is None
    hook.remove()
    assert kernels.find(CNN()) is not None


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_search_changes_nothing_and_goes_on_in_every_mode(
    context: Callable[[], AbstractContextManager[None]], new_search: None
) -> None:
    network, random, threads = CNN(), torch.get_rng_state(), torch.get_num_threads()
    with context():
        assert kernels.find(network) is not None
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert all(parameter.grad is None for parameter in network.parameters())


FAULTS = {
    "ReLU6": ("return shut ? floats{} : most;", "return shut ? floats{} : most > 6 ? floats{} + 6 : most;"),
    "a ReLU that lets all gradients pass": ("sum = get(image.third + p * C3 + c) <= 0 ? floats{} : sum;", ""),
    "conv1 detached": ("put(to, get(to) + sum[t]);", "put(to, floats{});"),
    "labels not smoothed in the loss": ("(smoothing * at_label - even * sum)", "0"),
    "other images": ("images[index[n] * SIDE", "images[n * SIDE"),
    "wrong counts": ("*is_correct = best == label;", "*is_correct = best != label;"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_kernels_that_compute_wrong_numbers_are_not_used(
    fault: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_search: None
) -> None:
    """As a compiler or a processor with a fault would make them."""
    source = kernels._SOURCE.read_text()
    assert source.count(fault[0]) == 1
    (tmp_path / "kernels.cpp").write_text(source.replace(*fault))
    monkeypatch.setattr(kernels, "_SOURCE", tmp_path / "kernels.cpp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels.why_not(CNN((16, 16, 16))) == "the kernels compute wrong numbers here"
    assert kernels.find(CNN((16, 16, 16))) is None


# ---- What a run says, and does, without them


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CXX", "no-such-compiler", "there is no C++ compiler"),
        ("CXX", "false", "the kernels cannot be compiled here"),
        ("XDG_CACHE_HOME", "/dev/null", "the kernels cannot be compiled here"),
        ("MNIST_TB_KERNELS", "off", "MNIST_TB_KERNELS is off"),
    ],
)
def test_where_nothing_can_be_compiled_torch_trains_and_says_so(
    variable: str,
    value: str,
    reason: str,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    new_search: None,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(variable, value)
    run = train("--epochs", "2")
    assert f"by torch alone: {reason}" in capsys.readouterr().out.splitlines()[0]
    assert run.read_metrics()["test"]["accuracy"] > 0.8


@pytest.mark.parametrize(("name", "value"), [("forward", clamped), ("features", detached)])
def test_another_network_is_trained_by_torch_and_the_run_says_so(
    name: str, value: object, train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CNN, name, value)
    run = train("--epochs", "2")
    assert "by torch alone: the kernels compute another network" in capsys.readouterr().out.splitlines()[0]
    assert run.read_metrics()["test"]["accuracy"] > 0.8


def test_an_evaluation_leaves_modes_and_nothing_that_cannot_be_trained_with(digits: Dataset) -> None:
    class Caching(CNN):
        cache: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.cache is None:
                self.cache = torch.ones(10) * 2
            logits: Tensor = super().forward(x) * self.cache
            return logits

    network = Caching()
    network.relu2.eval()
    before = [module.training for module in network.modules()]
    evaluate(network, digits, digits.test)
    assert [module.training for module in network.modules()] == before
    network(torch.ones(1, 1, 28, 28)).sum().backward()


def test_frozen_weights_stay(digits: Dataset) -> None:
    network = models.build((16, 32, 64), 0, CPU)
    network.conv1.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    update = TrainStep(Config.model_validate({"precision": "fp32"}), network, digits)
    update(torch.arange(64), 1e-3)
    is_same = {name: torch.equal(value, before[name]) for name, value in network.state_dict().items()}
    assert [name for name, same in is_same.items() if same] == ["conv1.weight", "conv1.bias"]


def test_a_library_is_compiled_once_and_found_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_search: None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found(CNN())
    made = list((tmp_path / "mnist_tb").iterdir())
    assert [path.suffix for path in made] == [".so"], "and nothing else is left there"
    kernels._library.cache_clear()
    before = made[0].stat().st_mtime_ns
    found(CNN())
    assert made[0].stat().st_mtime_ns == before


def run_alone(code: str) -> str:
    """What a fresh process prints that has taken some updates on the built-in digits."""
    start = """
        import re, resource
        from pathlib import Path
        import torch
        from mnist_tb import model
        from mnist_tb.data.datasets import load_dataset
        from mnist_tb.engine import process
        from mnist_tb.config.schema import Config
        from mnist_tb.engine.train_step import TrainStep
        process.tune_malloc()
        config = Config.model_validate({"precision": "fp32", "data": {"name": "digits"}})
        update = TrainStep(config, model.build((16, 32, 64), 0, torch.device("cpu")), load_dataset(config.data))
        def updates(count):
            for i in range(count):
                update(torch.arange(i % 10, i % 10 + 64), 1e-3)
        updates(100)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(code)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return process.stdout.strip()


def test_torch_has_no_team_of_threads_beside_the_kernels() -> None:
    """Two teams would fight for the cores: while the kernels work torch computes on one thread, and then as before."""
    code = """
        from mnist_tb.engine import kernels
        before = torch.get_num_threads()
        with kernels.threads_for(update.compute_model):
            print(torch.get_num_threads())
        print(torch.get_num_threads() == before)
        with kernels.threads_for(torch.nn.Linear(2, 2)):
            print(torch.get_num_threads() == before)
    """
    assert run_alone(code).split() == ["1", "True", "True"]


@pytest.mark.slow
def test_no_page_faults_in_the_steady_state() -> None:
    code = """
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        updates(500)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    assert int(run_alone(code)) < 100
