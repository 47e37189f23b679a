"""The lives of Lightning's logger, from the first stage of a trainer to its end: one table; and what it is given."""

from __future__ import annotations

import copy
import gc
import json
import multiprocessing
import os
import pickle
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from helpers.events import read_events, scalars
from mnist_tb import SummaryWriter
from mnist_tb.integrations.lightning import TrackerLogger
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.query import list_runs

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of few workers, short epochs and the like


class Module(L.LightningModule):
    def __init__(self, rate: float = 0.1, wrong: str | None = None) -> None:
        super().__init__()
        self.save_hyperparameters("rate")
        self.layer, self.wrong = nn.Linear(3, 1), wrong

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        if number == 2 and self.wrong:
            raise {"error": ValueError, "interrupt": KeyboardInterrupt, "sigterm": SIGTERMException}[self.wrong]("cat")
        self.log("loss", 0.5)
        return self(batch).sum()  # type: ignore[no-any-return]

    def validation_step(self, batch: Tensor, number: int) -> None:
        self.log("val_loss", 0.25)

    def test_step(self, batch: Tensor, number: int) -> None:
        self.log("test_loss", 0.125)

    def predict_step(self, batch: Tensor, number: int) -> Tensor:
        return self(batch)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def data() -> DataLoader[Any]:
    return DataLoader(torch.zeros(3, 3), 1)  # type: ignore[arg-type]


def trainer(logger: TrackerLogger, epochs: int = 1, **named: Any) -> L.Trainer:
    given = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False, "num_sanity_val_steps": 0, **named}
    return L.Trainer(
        max_epochs=epochs, logger=logger, log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=logger.save_dir, **given,
    )  # fmt: skip


def made(home: Path, **options: Any) -> TrackerLogger:
    return TrackerLogger(home, "mine", code=False, system_seconds=0, **options)


def fitted(home: Path, wrong: str | None = None, log: bool = False, **named: Any) -> tuple[TrackerLogger, L.Trainer]:
    """log: whether settings are logged before the trainer has the logger."""
    logger = made(home)
    if log:
        logger.log_hyperparams({"seed": 3})
    used = trainer(logger, **named)
    used.fit(Module(wrong=wrong), data(), data())
    return logger, used


def fit_twice(home: Path) -> None:
    _, used = fitted(home)
    assert used.fit_loop.max_epochs is not None
    used.fit_loop.max_epochs += 1
    used.fit(Module(), data(), data())


def two_trainers(home: Path) -> None:
    """As in TensorBoardLogger's version; the settings are those that HParams has."""
    logger, _ = fitted(home)
    trainer(logger).fit(Module(0.2), data(), data())


def all_stages(home: Path) -> None:
    _, used = fitted(home)
    used.validate(Module(), data())
    used.test(Module(), data())
    used.predict(Module(), data())


def stages_alone(home: Path) -> None:
    trainer(made(home)).test(Module(), data())
    trainer(made(home, version="0001-mine")).validate(Module(), data())


def resumed(home: Path) -> None:
    logger = made(home)
    trainer(logger, 1, enable_checkpointing=True).fit(Module(), data(), data())
    (path,) = Path(logger.log_dir, "checkpoints").iterdir()
    trainer(made(home, version=logger.version), 2).fit(Module(), data(), data(), ckpt_path=path)


def failed(home: Path) -> None:
    with pytest.raises(ValueError, match="cat"):
        fitted(home, "error")


def interrupted(home: Path) -> None:
    with pytest.raises(SystemExit):
        fitted(home, "interrupt")


def terminated(home: Path) -> None:
    with pytest.raises(SIGTERMException):
        fitted(home, "sigterm")


def failed_outside(home: Path) -> None:
    fitted(home)[0].finalize("failed")


def aborted(home: Path) -> None:
    fitted(home)[0].finalize("aborted")


def pickled(home: Path) -> None:
    logger, used = fitted(home)
    other = pickle.loads(pickle.dumps(used))
    assert other.logger.version == logger.version
    other.logger.log_metrics({"more": 1.0}, 3)
    other.logger.finalize("success")


def copied_while_open(home: Path) -> None:
    """What the copy logs is in another file of the run, which the first one has."""
    logger, used = fitted(home)
    logger.log_metrics({"more": 1.0}, 3)
    other = copy.deepcopy(used)
    assert other.logger is not None
    other.logger.log_metrics({"more": 1.0}, 4)
    other.logger.log_hyperparams({"seed": 3})
    for each in (other.logger, logger):
        each.finalize("success")


def never_closed(home: Path) -> None:
    made(home).log_metrics({"loss": 0.5}, 0)
    gc.collect()
    while list_run_folders(home)[0].is_in_use():
        pass


def fabric(home: Path) -> None:
    logger = made(home)
    fabric = L.Fabric(accelerator="cpu", devices=1, loggers=logger)
    fabric.logger.log_hyperparams({"rate": np.float32(0.1)})
    fabric.logger.log_graph(nn.Linear(3, 1), torch.zeros(1, 3))
    for step in range(3):
        fabric.log("loss", torch.tensor(0.5), step)
        fabric.log_dict({"val_loss": np.array([0.25]), "deep": {"a": {"b": 1}}}, step)
    fabric.logger.finalize("success")


def another_rank(home: Path) -> None:
    """As torchrun starts it: it has no run, and makes none."""
    logger, _ = fitted(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_zero_only, "rank", 1)
        for other in (made(home), pickle.loads(pickle.dumps(logger))):
            other.log_metrics({"more": 1.0}, 1)
            other.log_hyperparams({"other": 1})
            other.experiment.add_image("more", None)
            other.save()
            assert other.version in ("", logger.version)
            other.finalize("success")


def spawned(home: Path) -> None:
    logger, _ = fitted(home, strategy="ddp_spawn")
    trainer(logger).test(Module(), data())


def spawned_with_settings(home: Path) -> None:
    fitted(home, log=True, strategy="ddp_spawn", devices=2)


def spawned_and_failed(home: Path) -> None:
    with pytest.raises(Exception, match="cat"):
        fitted(home, "error", strategy="ddp_spawn")


def forked(home: Path) -> None:
    logger, _ = fitted(home, strategy="ddp_fork", devices=2)
    assert logger.version == "0001-mine"
    trainer(logger).test(Module(), data())


def version_in_a_fork(home: Path) -> None:
    """It is asked for there first; the run is the parent's, too."""
    logger = made(home)

    def work() -> None:
        assert logger.version == "0001-mine"
        logger.log_metrics({"loss": 0.5}, 0)
        logger.finalize("success")

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert logger.version == "0001-mine"
    logger.log_metrics({"loss": 0.5}, 1)
    logger.finalize("success")


def forked_with_settings(home: Path) -> None:
    logger, _ = fitted(home, log=True, strategy="ddp_fork", devices=2)
    logger.finalize("success")


def forked_and_failed(home: Path) -> None:
    with pytest.raises(Exception, match="cat"):
        fitted(home, "error", log=True, strategy="ddp_fork")


RATE, SEEDED = {"rate": 0.1}, {"rate": 0.1, "seed": 3}
ONE = {"loss": [0, 1, 2], "val_loss": [2]}
CUT = {"loss": [0, 1]}
LIVES: dict[Callable[[Path], Any], tuple[str, str | None, dict[str, Any], dict[str, list[int]]]] = {
    # status, error, settings, the steps of its curves
    fitted: ("completed", None, RATE, ONE),
    fit_twice: ("completed", None, RATE, {"loss": [0, 1, 2, 3, 4, 5], "val_loss": [2, 5]}),
    two_trainers: ("completed", None, RATE, {"loss": [0, 1, 2, 0, 1, 2], "val_loss": [2, 2]}),
    all_stages: ("completed", None, RATE, {"loss": [0, 1, 2], "val_loss": [2, 3], "test_loss": [3]}),
    stages_alone: ("completed", None, RATE, {"test_loss": [0], "val_loss": [0]}),
    resumed: ("completed", None, RATE, {"loss": [0, 1, 2, 3, 4, 5], "val_loss": [2, 5]}),
    failed: ("failed", "cat", RATE, CUT),
    interrupted: ("interrupted", "cat", RATE, CUT),
    terminated: ("interrupted", "SIGTERM", RATE, CUT),
    failed_outside: ("failed", 'finalize("failed") was called', RATE, ONE),
    aborted: ("interrupted", "aborted", RATE, ONE),
    pickled: ("completed", None, RATE, {**ONE, "more": [3]}),
    copied_while_open: ("completed", None, SEEDED, {**ONE, "more": [3, 4]}),
    never_closed: ("completed", None, {}, {"loss": [0]}),
    fabric: ("completed", None, RATE, {"loss": [0, 1, 2], "val_loss": [0, 1, 2], "deep/a/b": [0, 1, 2]}),
    version_in_a_fork: ("completed", None, {}, {"loss": [0, 1]}),
    another_rank: ("completed", None, RATE, ONE),
    forked: ("completed", None, RATE, {"loss": [0, 1], "val_loss": [1], "test_loss": [0]}),
    forked_with_settings: ("completed", None, SEEDED, {"loss": [0, 1], "val_loss": [1]}),
    forked_and_failed: ("failed", "ValueError: cat", SEEDED, CUT),
}
SLOW: dict[Callable[[Path], Any], tuple[str, str | None, dict[str, Any], dict[str, list[int]]]] = {
    spawned: ("completed", None, RATE, {**ONE, "test_loss": [0]}),
    spawned_with_settings: ("completed", None, SEEDED, {"loss": [0, 1], "val_loss": [1]}),
    spawned_and_failed: ("failed", "ValueError: cat", RATE, CUT),
}
_CASES = [*LIVES, *(pytest.param(life, marks=pytest.mark.slow) for life in SLOW)]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What trainers leave behind."""
    handler, environment = signal.getsignal(signal.SIGINT), dict(os.environ)
    yield
    signal.signal(signal.SIGINT, handler)
    for name in {*os.environ} - {*environment}:
        del os.environ[name]
    rank_zero_only.rank = 0


@pytest.mark.parametrize("life", _CASES, ids=lambda life: life.__name__)
def test_a_life(life: Callable[[Path], Any], tmp_path: Path) -> None:
    """It is one run, with a true status, all settings, and each point once; whatever has no run leaves none."""
    status, error, settings, steps = {**LIVES, **SLOW}[life]
    life(tmp_path)
    (run,), (row,) = list_run_folders(tmp_path), list_runs(tmp_path).runs
    read = scalars(run)
    assert (row.status, run.read_metrics().get("error")) == (status, error)
    assert row.settings == settings
    assert {tag: [step for step, _ in read.get(tag, [])] for tag in steps} == steps
    assert {*read} - {"epoch"} == {*steps}
    assert not run.is_in_use()


def test_it_takes_what_the_original_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert issubclass(TrackerLogger, TensorBoardLogger)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path))
    for given in ({"save_dir": "~/a"}, {"logdir": "$WHERE/a"}, {"root_dir": tmp_path / "a"}):
        logger = TrackerLogger(**given, name="my/model", max_queue=1, flush_secs=1, filename_suffix="x", prefix="p")  # type: ignore[arg-type]
        logger.log_metrics({"loss": 1.0})
        logger.finalize("success")
        assert logger.log_dir == str(tmp_path / "a" / logger.version)
        assert [*scalars(Run(Path(logger.log_dir)))] == ["p-loss"]
    assert [run.name for run in list_run_folders(tmp_path / "a")] == [f"000{i}-my-model" for i in (1, 2, 3)]
    for more, folder in (
        ({"version": 4}, "lightning/version_4"), ({"version": "x", "sub_dir": "y"}, "lightning/x/y"),
        ({"name": None, "version": 0}, "version_0"), ({"sub_dir": "z"}, "lightning/version_5/z"),
    ):  # fmt: skip
        logger = TrackerLogger("~/b", **more)  # type: ignore[arg-type]
        logger.log_metrics({"loss": 1.0}, 3)
        logger.finalize("success")
        assert logger.log_dir == str(tmp_path / "b" / folder)
        assert scalars(Run(tmp_path / "b" / folder)) == {"loss": [(3, 1.0)]}
    assert {(row.name, row.status) for row in list_runs(tmp_path / "b").runs} == {
        (name, "completed") for name in ("lightning/version_4", "lightning/x/y", "version_0", "lightning/version_5/z")
    }


def test_settings_are_kept_as_they_are(tmp_path: Path) -> None:
    logger = made(tmp_path, default_hp_metric=True)
    logger.log_hyperparams({"size": 128, "none": None, "numpy": np.int64(3), "deep": {"list": [1, 2]}})
    logger.log_hyperparams(Namespace(inner=Namespace(on=True), odd=nn.ReLU()), {"score": torch.tensor([0.5])}, 7)
    logger.log_hyperparams(None)
    logger.finalize("success")
    (row,) = list_runs(tmp_path).runs
    assert row.settings == {
        "size": 128, "none": None, "numpy": 3, "deep.list": [1, 2], "inner.on": True, "odd": "ReLU()",
    }  # fmt: skip
    assert type(row.settings["size"]) is int
    assert scalars(Run(row.path)) == {"hp_metric": [(0, -1.0), (0, -1.0)], "score": [(7, 0.5)]}


def test_the_writer_is_a_summary_writer(tmp_path: Path) -> None:
    """And has the Tracker's methods, which it was in version 1.0."""
    logger = made(tmp_path)
    writer = logger.experiment
    assert isinstance(writer, SummaryWriter)
    assert writer.log_dir == logger.log_dir
    writer.add_image("picture", torch.zeros(3, 4, 4), 1)
    writer.add_histogram("numbers", torch.arange(3.0), 1)
    writer.scalars(2, {"a": 1.0})
    writer.flush()
    read = read_events(Run(Path(logger.log_dir)))
    assert (read.Tags()["images"], read.Tags()["histograms"]) == (["picture"], ["numbers"])
    logger.log_metrics({"odd": "text", "array": np.ones((1, 1)), "deep": {"b": torch.ones(1, 1), "c": True}}, 3)
    logger.finalize("success")
    read = read_events(Run(Path(logger.log_dir)))
    assert {*scalars(Run(Path(logger.log_dir)))} == {"a", "array", "deep/b", "deep/c"}


class Drawn(Module):
    """Its layers are those of the case."""

    def __init__(self, work: Callable[..., Tensor], example: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"line": nn.Linear(4, 4), "words": nn.Embedding(10, 4), "drop": nn.Dropout(0.5)})
        self.norm, self.work, self.example_input_array = nn.BatchNorm1d(4), work, example

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.work(self, x, y)


def both(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return model.layers["drop"](model.norm(model.layers["line"](x))) + model.layers["words"](y)  # type: ignore[no-any-return]


def words(model: Any, x: Tensor, y: None) -> Tensor:
    return model.layers["words"](x)  # type: ignore[no-any-return]


def choosing(model: Any, x: Tensor, y: None) -> Tensor:
    return model.norm(x) if x.sum() > 0 else x  # type: ignore[no-any-return]


REAL, WHOLE = torch.ones(2, 4), torch.tensor([9, 1])
EXAMPLES: dict[str, tuple[Callable[..., Tensor], Any, list[int] | str]] = {  # the shape of a layer, or the warning
    "whole numbers": (words, WHOLE, [2, 4]),
    "a tuple": (both, (REAL, WHOLE), [2, 4]),
    "names": (both, {"y": WHOLE, "x": REAL}, [2, 4]),
    "control flow": (choosing, REAL, "the graph of Drawn cannot be drawn: "),
    "a number": (words, 3, "can't be traced by TensorBoard"),
    "nothing": (words, None, "was not given"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("work", "example", "result"), EXAMPLES.values(), ids=EXAMPLES)
def test_a_graph_or_one_warning(
    work: Callable[..., Tensor], example: Any, result: list[int] | str, tmp_path: Path
) -> None:
    """And the model is as it was."""
    logger, model = made(tmp_path, log_graph=True), Drawn(work, example)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if isinstance(result, str):
        with pytest.warns(UserWarning, match=result) as said:
            logger.log_graph(model)
        assert len(said) == 1
    else:
        logger.log_graph(model)
        logger.finalize("success")
        (node,) = (n for n in read_events(Run(Path(logger.log_dir))).Graph().node if n.op == "Embedding")
        assert [dim.size for dim in node.attr["_output_shapes"].list.shape[0].dim] == result
    assert model.training
    assert model.layers["drop"].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class SaveConfig(L.Callback):
    """LightningCLI's SaveConfigCallback, as far as files go."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert trainer.log_dir is not None
        path = Path(trainer.log_dir, "config.yaml")
        assert not path.exists()
        path.write_text("model: mine\n")


def test_each_training_has_its_files_in_its_folder(tmp_path: Path) -> None:
    """Those of LightningCLI, its own, and its checkpoints; the run's settings stand beside them."""
    for name in ("0001-mine", "0002-mine"):
        logger = made(tmp_path)
        best = ModelCheckpoint(monitor="val_loss", save_last=True)
        used = trainer(logger, callbacks=[SaveConfig(), best], enable_checkpointing=True)
        used.fit(Module(), data(), data())
        assert used.log_dir == logger.log_dir == str(tmp_path / name)
        assert (tmp_path / name / "config.yaml").read_text() == "model: mine\n"
        assert (tmp_path / name / "hparams.yaml").read_text() == "rate: 0.1\n"
        known = json.loads((tmp_path / name / "metrics.json").read_text())
        assert known["config"] == RATE
        assert known["checkpoints"] == {"best": best.best_model_path, "last": best.last_model_path}
        assert Path(best.best_model_path).parent == tmp_path / name / "checkpoints"
    assert [(row.name, row.status, row.settings) for row in list_runs(tmp_path).runs] == [
        (name, "completed", RATE) for name in ("0001-mine", "0002-mine")
    ]
