"""Lightning's, Transformers' and Accelerate's trainers, tracked: real ones, run as the examples run them."""

from __future__ import annotations

import gc
import json
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.events import read_events, scalars
from helpers.killing import record_counts
from helpers.paths import REPOSITORY
from mnist_tb.cli.main import main
from mnist_tb.events import reader
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.query import list_runs

Example = Callable[..., dict[str, Any]]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Example:
    """Runs an example's main with these options; returns its names. What the libraries warn of is theirs."""

    def run(name: str, *options: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, "--logdir", str(tmp_path / "runs"), *options])
        monkeypatch.chdir(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = runpy.run_path(str(REPOSITORY / "examples" / f"{name}.py"))
            found["main"]()
            gc.collect()
        return found

    return run


def only(logdir: Path) -> tuple[Run, dict[str, Any]]:
    """The one run, and its metrics.json with the results of its curves."""
    (run,), (row,) = list_run_folders(logdir), list_runs(logdir).runs
    results = {
        "val": {"accuracy": row.val_accuracy, "loss": row.val_loss},
        "test": {"accuracy": row.test_accuracy, "loss": row.test_loss},
    }
    return run, {**run.read_metrics(), **results}


def test_lightning(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fit and test are one run, with its settings, its result and its checkpoints; each point is written once."""
    example("lightning_mlp", "--epochs", "2", "--lr", "0.01")
    run, known = only(tmp_path / "runs")
    assert known["status"] == "completed"
    assert known["config"] == {"lr": 0.01, "width": 64}
    assert known["dataset"] == "digits"
    assert Path(known["checkpoints"]["best"]).parent == run.path / "checkpoints"
    assert Path(known["checkpoints"]["best"]).is_file()
    read = scalars(run)
    assert known["test"] == {
        "accuracy": pytest.approx(read["test_acc"][-1][1]), "loss": pytest.approx(read["test_loss"][-1][1])
    }  # fmt: skip
    assert known["val"]["accuracy"] == pytest.approx(max(value for _, value in read["val_acc"]))
    assert [step for step, _ in read["val_acc"]] == [19, 39]
    status = read_events(run).Tensors("live/status")[-1].tensor_proto.string_val[0]
    said = json.loads(status)
    assert (said["state"], said["step"]) == ("completed", 40)
    for number, tag in (("loss", "train_loss"), ("val_accuracy", "val_acc"), ("test_accuracy", "test_acc")):
        assert said[number] == pytest.approx(read[tag][-1][1]), "what came before the test is still there"
    assert all(
        count == 1 for (tag, _), count in record_counts(run).items() if tag.startswith(("train", "val", "test_"))
    )
    capsys.readouterr()
    assert main(arguments=["compare", "--logdir", str(tmp_path / "runs"), "--format", "json"]) == 0
    (section,) = json.loads(capsys.readouterr().out)
    assert section["dataset"] == "digits"
    assert section["lines"][0]["test_accuracy"] == pytest.approx(read["test_acc"][-1][1])


@pytest.mark.filterwarnings("ignore")
def test_lightning_that_fails_and_its_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning as L

    from mnist_tb.integrations.lightning import TrackerLogger

    class Module(L.LightningModule):
        def __init__(self, wrong: type[BaseException] | None) -> None:
            super().__init__()
            self.layer, self.example_input_array, self.wrong = torch.nn.Linear(3, 1), torch.zeros(1, 3), wrong

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)  # type: ignore[no-any-return]

        def training_step(self, batch: torch.Tensor, number: int) -> torch.Tensor:
            if number == 2 and self.wrong is not None:
                raise self.wrong("the cat")
            return self(batch).sum()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    monkeypatch.chdir(tmp_path)
    for wrong, outer, status in (
        (None, None, "completed"), (ValueError, ValueError, "failed"), (KeyboardInterrupt, SystemExit, "interrupted"),
    ):  # fmt: skip
        logger = TrackerLogger(tmp_path / "runs", "mine", log_graph=True)
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=logger, enable_progress_bar=False, enable_checkpointing=False
        )
        loader = torch.utils.data.DataLoader(torch.zeros(4, 3), 1)
        if outer is None:
            trainer.fit(Module(wrong), loader)
        else:
            with pytest.raises(outer):
                trainer.fit(Module(wrong), loader)
        known = Run(Path(logger.log_dir)).read_metrics()
        assert known["status"] == status
        assert known.get("error") == (None if wrong is None else "the cat")
        assert any("layer" in node.name for node in read_events(Run(Path(logger.log_dir))).Graph().node)


def test_transformers(example: Example, tmp_path: Path) -> None:
    example("transformers_digits", "--epochs", "2")
    run, known = only(tmp_path / "runs")
    assert known["status"] == "completed"
    settings = known["config"]
    assert {
        "learning_rate": 3e-3, "num_train_epochs": 2, "seed": 42, "per_device_train_batch_size": 64,
        "model.hidden_size": 32, "model.num_hidden_layers": 2,
    }.items() <= settings.items()  # fmt: skip
    assert len(settings) < 40, "defaults are left out"
    assert not any("token" in key or "dir" in key for key in settings)
    read = scalars(run)
    assert [step for step, _ in read["eval_accuracy"]] == [20, 40]
    assert known["val"]["accuracy"] == pytest.approx(max(value for _, value in read["eval_accuracy"]))
    assert len(read["loss"]) == 8


def test_transformers_that_fails(tmp_path: Path) -> None:
    """In a `with` block of the callback; without one the program's end would say so."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from mnist_tb.integrations.transformers import TrackerCallback

    arguments = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none", hub_token="geheim")
    state, control = TrainerState(global_step=3, max_steps=10), TrainerControl()

    def fail() -> None:
        with TrackerCallback(tmp_path / "runs", "mine") as callback:
            callback.on_train_begin(arguments, state, control)
            callback.on_log(arguments, state, control, {"loss": 1.0, "text": "x"})
            raise ValueError("the cat")

    with pytest.raises(ValueError, match="the cat"):
        fail()
    run, known = only(tmp_path / "runs")
    assert (known["status"], known["error"]) == ("failed", "the cat")
    assert scalars(run)["loss"] == [(3, 1.0)]
    assert "geheim" not in "".join(
        path.read_text(errors="replace") for path in run.path.iterdir() if path.is_file() and path.suffix != ".patch"
    )
    state.is_world_process_zero = False
    other = TrackerCallback(tmp_path / "others")
    other.on_train_begin(arguments, state, control)
    other.on_log(arguments, state, control, {"loss": 1.0})
    other.on_train_end(arguments, state, control)
    assert not (tmp_path / "others").exists()


def test_transformers_says_how_many_steps_are_planned(tmp_path: Path) -> None:
    """Also of a run that an evaluation has begun, before anything was planned."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from mnist_tb.integrations.transformers import TrackerCallback

    arguments, control = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none"), TrainerControl()
    callback = TrackerCallback(tmp_path / "runs", "mine")
    callback.on_log(arguments, TrainerState(), control, {"eval_loss": 1.0})
    callback.on_train_begin(arguments, TrainerState(max_steps=10), control)
    callback.on_train_end(arguments, TrainerState(max_steps=10), control)
    run, _ = only(tmp_path / "runs")
    said = reader.read(run.path).said
    assert said is not None
    assert json.loads(said[0])["steps"] == 10


def test_accelerate(example: Example, tmp_path: Path) -> None:
    example("accelerate_mlp", "--epochs", "2")
    run, known = only(tmp_path / "runs")
    assert known["status"] == "completed"
    assert known["config"] == {"lr": 1e-3, "epochs": 2, "width": 64}
    read = scalars(run)
    assert len(read["train_loss"]) == 40
    assert [step for step, _ in read["val_acc"]] == [20, 40]
    assert known["val"]["accuracy"] == pytest.approx(read["val_acc"][-1][1])


@pytest.mark.parametrize("name", ["lightning", "transformers", "accelerate"])
def test_an_extra_that_is_missing_is_named(name: str) -> None:
    program = f"import sys; sys.modules[{name!r}] = None; import mnist_tb.integrations.{name}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"pip install 'mnist-tb[{name}]'" in done.stderr.splitlines()[-1]


@pytest.mark.filterwarnings("ignore")
def test_each_training_of_transformers_is_a_run_with_its_evaluations(tmp_path: Path) -> None:
    """Whatever trainers a callback is given to."""
    from transformers import Trainer, TrainingArguments

    from mnist_tb.integrations.transformers import TrackerCallback

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.layer(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    data = [{"x": torch.ones(2), "labels": torch.tensor(0)}] * 8
    callback = TrackerCallback(tmp_path / "runs", "mine", code=False, system_seconds=0)
    for steps in (4, 6):
        arguments = TrainingArguments(
            str(tmp_path / "out"), max_steps=steps, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no",
            disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(Model(), arguments, train_dataset=data, eval_dataset=data, callbacks=[callback])  # type: ignore[arg-type]
        trainer.evaluate()
        trainer.train()
        assert callback.folder is not None
        assert Run(callback.folder).read_metrics()["status"] == "completed"
        trainer.evaluate()
        assert Run(callback.folder).read_metrics()["status"] == "completed"
    runs = list_run_folders(tmp_path / "runs")
    assert [[step for step, _ in scalars(run)["loss"]] for run in runs] == [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]
    assert [[step for step, _ in scalars(run)["eval_loss"]] for run in runs] == [[0, 4], [0, 6]]
    assert [run.read_metrics()["asked"]["code"] for run in runs] == [False, False]


def test_accelerate_after_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged then goes on with the run; another training is another run."""
    from accelerate import Accelerator

    from mnist_tb.integrations.accelerate import TrackerTracker

    tracker = TrackerTracker(tmp_path / "runs", "mine", system_seconds=0)
    monkeypatch.chdir(tmp_path)
    for rate in (0.1, 0.2):
        accelerator = Accelerator(log_with=tracker, cpu=True)
        accelerator.init_trackers("project", {"lr": rate})
        accelerator.log({"loss": 1.0}, step=1)
        accelerator.end_training()
        accelerator.log({"loss": 2.0}, step=2)
        accelerator.end_training()
    runs = list_run_folders(tmp_path / "runs")
    assert [run.read_metrics()["config"] for run in runs] == [{"lr": 0.1}, {"lr": 0.2}]
    for run in runs:
        assert run.read_metrics()["status"] == "completed"
        assert scalars(run)["loss"] == [(1, 1.0), (2, 2.0)]


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_with_dropout_though_its_graph_is_drawn(tmp_path: Path) -> None:
    import lightning as L

    from mnist_tb.integrations.lightning import TrackerLogger

    modes = []

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Dropout(0.5), torch.nn.Flatten())
            self.example_input_array = torch.zeros(1, 8, dtype=torch.long)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)  # type: ignore[no-any-return]

        def training_step(self, batch: torch.Tensor, number: int) -> torch.Tensor:
            modes.append(self.net[1].training)
            return self(batch).square().mean()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    logger = TrackerLogger(tmp_path / "runs", "mine", log_graph=True, code=False)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=logger, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.zeros(4, 8, dtype=torch.long), 2))
    assert modes == [True, True]
    assert read_events(Run(Path(logger.log_dir))).Graph().node
