"""The compiled network: against autograd on the plain one, to the bit where it can be, and what happens without it."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.fixtures import Train
from mnist_tb import model as models
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine import kernels
from mnist_tb.engine.kernels import Kernels
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


def test_bf16_is_as_near_to_fp32_as_torchs_bf16_is() -> None:
    network = models.build((16, 32, 64), 1, CPU)
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


def test_other_networks_are_torchs() -> None:
    assert kernels.find(CNN((4, 5, 6))) is None
    assert kernels.find(CNN(classes=7)) is None
    assert kernels.find(CNN((16, 32, 256))) is None
    assert kernels.find(CNN().to("meta")) is None
    assert kernels.find(CNN().double()) is None
    assert kernels.find(torch.nn.Linear(784, 10)) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CXX", "no-such-compiler"), ("CXX", "false"), ("XDG_CACHE_HOME", "/dev/null"), ("MNIST_TB_KERNELS", "off")],
)
def test_where_nothing_can_be_compiled_torch_trains_and_says_so(
    variable: str,
    value: str,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    new_search: None,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(variable, value)
    run = train("--epochs", "2")
    assert "by torch alone: there are no kernels for this network here" in capsys.readouterr().out
    assert run.read_metrics()["test"]["accuracy"] > 0.8


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


def test_another_network_is_never_computed_by_them(compiler: str) -> None:
    """Parameters of the same sizes are not enough: what a class does with them may have been changed."""

    class Negative(CNN):
        def features(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            first, second, third = super().features(x)
            return first, second, -third

    class Dropping(CNN):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(super().forward(x), training=self.training)

    class Wider(CNN):
        def __init__(self, channels: tuple[int, ...] = (16, 32, 64)) -> None:
            super().__init__(channels)
            self.conv2 = torch.nn.Conv2d(16, 32, 5, padding=2)

    class Same(CNN):
        pass

    assert [kernels.find(kind()) is not None for kind in (Negative, Dropping, Wider, Same)] == [
        False,
        False,
        False,
        True,
    ]


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
