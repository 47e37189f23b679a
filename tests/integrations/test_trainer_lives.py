"""The lives of trainings in other trainers, from the first call to each of their ends: one table, real trainers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tensorboard.plugins.hparams import metadata

from helpers.events import read_events, scalars
from helpers.ports import free_port
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.query import list_runs

pytestmark = pytest.mark.slow

PROGRAM = """
    import atexit, copy, gc, os, pickle, signal, sys, warnings
    from pathlib import Path
    atexit.register(os._exit, 0)  # the last one that is called: to take torch apart takes most of a second
    import numpy as np, optuna, torch
    from accelerate import Accelerator
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from mnist_tb.environment.snapshot import packages
    from mnist_tb.integrations.accelerate import TrackerTracker
    from mnist_tb.integrations.transformers import TrackerCallback

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    packages()  # once for all
    gc.freeze()  # else each fork looks through all that was imported
    folder, port, how, running = sys.argv[1], sys.argv[2], "", 0
    for each in sys.argv[3:]:
        if os.fork() == 0:
            how = each
            break
        running += 1
        if running == 4:
            os.wait()
            running -= 1
    if not how:
        while running:
            os.wait()
            running -= 1
        os._exit(0)

    kind, _, how = how.partition(" ")
    home = f"{folder}/{kind} {how}"
    os.mkdir(home)
    os.chdir(home)
    said = open("said", "w", buffering=1)
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    options = {"code": False, "system_seconds": 0}
    ODD = {
        "python": 1, "numpy": np.float32(0.5), "array": np.array([0.5]), "tensor": torch.tensor([0.5]),
        "half": torch.tensor(0.5, dtype=torch.bfloat16), "deep": {"a": {"b": 0.5}, "text": "x"}, "text": "**hello**",
        "none": None, "list": [1, 2], "two": torch.zeros(2), "later": 0.5,
    }

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x, labels):
            logits = self.layer(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    class At(TrainerCallback):
        def __init__(self, step, call):
            self.step, self.call = step, call

        def on_step_end(self, args, state, control, **given):
            if state.global_step == self.step:
                return self.call(control)

    data = [{"x": torch.ones(2), "labels": torch.tensor(0)}] * 8

    def trainer(callback, *others, rate=0.1, steps=2, **more):
        more = {"save_strategy": "no", "report_to": "none", **more}
        arguments = TrainingArguments(
            "out", max_steps=steps, logging_steps=1, learning_rate=rate, use_cpu=True, disable_tqdm=True, **more
        )
        model = {"model_init": lambda trial=None: Model()} if "search" in how else {"model": Model()}
        callbacks = [callback, *others]
        return Trainer(args=arguments, train_dataset=data, eval_dataset=data, callbacks=callbacks, **model)

    def fail(*_, error=ValueError):
        raise error("the cat")

    def stop(control):
        control.should_training_stop = True
        return control

    def in_two_processes():
        first = os.fork() != 0
        os.environ.update(RANK=str(int(not first)), LOCAL_RANK=str(int(not first)), WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=port)
        return first

    def transformers():
        callback = TrackerCallback(".", "x", **options)
        if how == "trained":
            trainer(callback).train()
        elif how == "evaluated-around":
            one = trainer(callback)
            one.evaluate()
            one.train()
            one.evaluate()
            one.predict(data)
        elif how == "evaluated-within":
            trainer(callback, eval_strategy="steps", eval_steps=1).train()
        elif how == "only-evaluated":
            trainer(callback).evaluate()
        elif how == "trained-twice":
            one = trainer(callback)
            one.train()
            one.args.learning_rate = 0.2
            one.train()
        elif how == "two-trainers":
            for rate in (0.1, 0.2):
                one = trainer(callback, rate=rate)
                one.evaluate()
                one.train()
        elif how == "search":
            def space(trial):
                rate = [0.1, 0.2, 0.3][trial.number]
                return {"learning_rate": trial.suggest_float("learning_rate", rate, rate)}
            trainer(callback).hyperparameter_search(
                hp_space=space, hp_name=lambda trial: f"trial {trial.number}", n_trials=3, backend="optuna",
                direction="minimize", compute_objective=lambda metrics: metrics["eval_loss"],
            )
        elif how == "resumed":
            trainer(callback, save_strategy="steps", save_steps=2).train()
            trainer(TrackerCallback(".", "x", **options), steps=4).train(resume_from_checkpoint=True)
        elif how == "stopped":
            trainer(callback, At(1, stop)).train()
        elif how == "error-in-with":
            with callback:
                trainer(callback, At(1, fail)).train()
        elif how == "error":
            trainer(callback, At(1, fail)).train()
        elif how == "interrupted":
            trainer(callback, At(1, lambda control: fail(error=KeyboardInterrupt))).train()
        elif how == "error-caught":
            try:
                trainer(callback, At(1, fail)).train()
            except ValueError:
                trainer(callback, rate=0.2).train()
        elif how == "killed":
            def kill(control):
                callback.tb_writer.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            trainer(callback, At(2, kill)).train()
        elif how == "never-ended":
            state = TrainerState(global_step=1, max_steps=2)
            arguments = TrainingArguments("out", use_cpu=True, learning_rate=0.1, report_to="none")
            callback.on_train_begin(arguments, state, TrainerControl())
            callback.on_log(arguments, state, TrainerControl(), {"loss": 1.0})
        elif how == "copied":
            trainer(callback).evaluate()
            for rate, one in ((0.2, copy.deepcopy(callback)), (0.3, pickle.loads(pickle.dumps(callback)))):
                trainer(one, rate=rate).train()
            trainer(callback).train()
        elif how == "two-processes":
            in_two_processes()
            one = trainer(callback, ddp_backend="gloo")
            one.train()
            one.evaluate()
        elif how == "odd-values":
            one = trainer(callback)
            one.train()
            for step in (3, 4):
                one.state.global_step = step
                one.log(dict(ODD))

    def accelerate():
        tracker = TrackerTracker(".", "x", **options)

        def begin(rate=0.1, one=None, log_with=tracker, **more):
            one = one or Accelerator(log_with=log_with, cpu=True)
            one.init_trackers("project", {"lr": rate}, **more)
            one.log({"loss": 1.0}, step=1)
            one.log({"loss": 1.0}, step=2)
            return one

        if how == "trained":
            begin().end_training()
        elif how == "trained-twice":
            for rate in (0.1, 0.2):
                begin(rate).end_training()
        elif how == "one-accelerator":
            one = begin()
            one.end_training()
            begin(0.2, one)
            one.end_training()
            one.log({"loss": 1.0}, step=3)
            one.end_training()
        elif how == "begun-twice":
            begin(0.2, begin()).end_training()
        elif how == "two-accelerators":
            one, two = Accelerator(log_with=tracker, cpu=True), Accelerator(log_with=tracker, cpu=True)
            one.init_trackers("project")
            begin(one=two).end_training()
            one.log({"loss": 1.0}, step=3)
            one.end_training()
        elif how == "given-twice":
            begin(log_with=[tracker, tracker]).end_training()
        elif how == "beside-another":
            one = Accelerator(log_with=[tracker, "tensorboard"], project_dir=f"{folder}/others", cpu=True)
            begin(one=one).end_training()
        elif how == "after-the-end":
            one = begin()
            one.end_training()
            one.log({"loss": 1.0})
            one.log({"loss": 1.0}, step=3)
            one.end_training()
        elif how == "no-point":
            Accelerator(log_with=tracker, cpu=True).init_trackers("project")
            fail()
        elif how == "error":
            begin()
            fail()
        elif how == "interrupted":
            begin()
            fail(error=KeyboardInterrupt)
        elif how == "exit":
            begin()
            sys.exit(3)
        elif how == "error-caught":
            try:
                begin()
                fail()
            except ValueError:
                begin(0.2).end_training()
        elif how == "killed":
            begin()
            tracker.writer.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "never-ended":
            begin()
        elif how == "copied":
            begin()
            for rate, one in ((0.2, copy.deepcopy(tracker)), (0.3, pickle.loads(pickle.dumps(tracker)))):
                one.log({"loss": 1.0}, step=7)
                one.finish()
                begin(rate, log_with=one).end_training()
        elif how == "forked":
            one = begin()
            if os.fork() == 0:
                one.log({"loss": 1.0}, step=7)
                one.end_training()
                begin(0.2, log_with=tracker).end_training()
                os._exit(0)
            os.wait()
            one.end_training()
        elif how == "two-processes":
            in_two_processes()
            one = begin()
            one.get_tracker("mnist_tb").log({"loss": 1.0}, step=3)
            one.get_tracker("mnist_tb", unwrap=True).add_scalar("loss", 1.0, 4)
            one.end_training()
        elif how == "writer":
            one = begin()
            writer = one.get_tracker("mnist_tb", unwrap=True)
            writer.add_scalar("loss", 1.0, 3)
            writer.scalars(4, {"loss": 1.0})  # as a Tracker, which it was in version 1.0
            writer.tracker.scalars(5, {"loss": 1.0})
            one.log({"loss": 1.0}, step=6, log_kwargs={"mnist_tb": {"walltime": 123.0}})
            one.end_training()
            print(writer.run.name, writer.log_dir == tracker.logging_dir)
        elif how == "odd-values":
            one = Accelerator(log_with=tracker, cpu=True)
            odd = {"lr": np.float32(0.1), "none": None, "list": [1, 2], "deep": {"a": {"b": 1}}, "path": Path("x")}
            one.init_trackers("project", {**odd, "object": type("Odd", (), {"__repr__": lambda self: "odd"})()})
            one.log({"loss": 1.0, **ODD}, step=1)
            one.log({"loss": 1.0, **ODD}, step=2)
            tracker.log_images({"picture": np.zeros((1, 3, 4, 4), np.uint8)}, step=3)
            one.end_training()

    globals()[kind]()
"""

Life = list[tuple[str, float | None, str]]
ONE: Life = [("completed", 0.1, "loss 1 2")]
TWO: Life = [*ONE, ("completed", 0.2, "loss 1 2")]
LIVES: dict[str, Life] = {  # its runs: status, learning rate, points
    "transformers trained": ONE,
    "transformers evaluated-around": [("completed", 0.1, "eval_loss 0 2 loss 1 2 test_loss 2")],
    "transformers evaluated-within": [("completed", 0.1, "eval_loss 1 2 loss 1 2")],
    "transformers only-evaluated": [("completed", None, "eval_loss 0")],
    "transformers trained-twice": TWO,
    "transformers two-trainers": [(status, rate, f"eval_loss 0 {points}") for status, rate, points in TWO],
    "transformers search": [("completed", rate, "eval_loss 2 loss 1 2") for rate in (0.1, 0.2, 0.3)],
    "transformers resumed": [*ONE, ("completed", 0.1, "loss 3 4")],
    "transformers stopped": [("completed", 0.1, "loss 1")],
    "transformers error-in-with": [("failed", 0.1, "")],
    "transformers error": [("failed", 0.1, "")],
    "transformers interrupted": [("interrupted", 0.1, "")],
    "transformers error-caught": [("failed", 0.1, ""), ("completed", 0.2, "loss 1 2")],
    "transformers killed": [("killed", 0.1, "loss 1")],
    "transformers never-ended": [("completed", 0.1, "loss 1")],
    "transformers copied": [
        ("completed", 0.1, "eval_loss 0 loss 1 2"), ("completed", 0.2, "loss 1 2"), ("completed", 0.3, "loss 1 2"),
    ],
    "transformers two-processes": [("completed", 0.1, "eval_loss 2 loss 1 2")],
    "accelerate trained": ONE,
    "accelerate trained-twice": TWO,
    "accelerate one-accelerator": [*ONE, ("completed", 0.2, "loss 1 2 3")],
    "accelerate begun-twice": TWO,
    "accelerate two-accelerators": [("completed", 0.1, "loss 1 2 3")],
    "accelerate given-twice": ONE,
    "accelerate beside-another": ONE,
    "accelerate after-the-end": [("completed", 0.1, "loss 1 2 2 3")],
    "accelerate no-point": [("failed", None, "")],
    "accelerate error": [("failed", 0.1, "loss 1 2")],
    "accelerate interrupted": [("interrupted", 0.1, "loss 1 2")],
    "accelerate exit": [("failed", 0.1, "loss 1 2")],
    "accelerate error-caught": TWO,
    "accelerate killed": [("killed", 0.1, "loss 1 2")],
    "accelerate never-ended": ONE,
    "accelerate copied": [*TWO, ("completed", 0.3, "loss 1 2")],
    "accelerate forked": TWO,
    "accelerate two-processes": [("completed", 0.1, "loss 1 2 3 4")],
    "accelerate writer": [("completed", 0.1, "loss 1 2 3 4 5 6")],
}  # fmt: skip
OTHERS = ("transformers odd-values", "accelerate odd-values")


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all lives, each in a fork of one program that has imported the trainers."""
    folder = tmp_path_factory.mktemp("lives")
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), str(free_port()), *LIVES, *OTHERS]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # forks of forks
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=280, check=False,
        env={**environment, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    (folder / "stderr").write_text(done.stdout + done.stderr)
    return folder


@pytest.mark.parametrize("life", LIVES)
def test_a_life(life: str, lives: Path) -> None:
    context = (lives / life / "said").read_text() if (lives / life).is_dir() else (lives / "stderr").read_text()
    rows = sorted(list_runs(lives / life).runs, key=lambda row: row.name)
    found = [(row.status, rate(Run(row.path)), points(Run(row.path))) for row in rows]
    assert (sorted(found, key=str) if "fork" in life else found) == LIVES[life], context
    assert not any(Run(row.path).is_in_use() for row in rows)


def rate(run: Run) -> Any:
    known = run.read_metrics()["config"]
    return known.get("learning_rate", known.get("lr"))


def points(run: Run) -> str:
    read = {tag: [step for step, _ in curve] for tag, curve in scalars(run).items() if tag.endswith("loss")}
    read.pop("train_loss", None)  # what Transformers says at the end
    return " ".join(f"{tag} {' '.join(map(str, steps))}" for tag, steps in sorted(read.items()))


def hparams(run: Run) -> dict[str, Any]:
    """What the HParams tab reads."""
    content = read_events(run).PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    found = metadata.parse_session_start_info_plugin_data(content).hparams.items()
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found}


def test_each_trial_of_a_search_has_its_own_settings(lives: Path) -> None:
    for number, run in enumerate(list_run_folders(lives / "transformers search")):
        for settings in (run.read_metrics()["config"], hparams(run)):
            assert settings["learning_rate"] == pytest.approx((number + 1) / 10)
            assert settings["trial_name"] == f"trial {number}"


@pytest.mark.parametrize("life", OTHERS)
def test_odd_values_cost_themselves_alone(life: str, lives: Path) -> None:
    """Numbers of any kind, nested ones and texts are written; of each of the rest there is one warning."""
    (run,) = list_run_folders(lives / life)
    read, steps = scalars(run), [1, 2] if "accelerate" in life else [3, 4]
    for tag in ("numpy", "array", "tensor", "half", "deep/a/b", "later"):
        assert read[tag] == [(step, 0.5) for step in steps], tag
    assert read["python"] == [(step, 1.0) for step in steps]
    assert {"text/text_summary", "deep/text/text_summary"} <= {*read_events(run).Tags()["tensors"]}
    said = (lives / life / "said").read_text()
    assert "Traceback" not in said
    assert [said.count(f": {tag} is not written") for tag in ("none", "list", "two")] == [1, 1, 1], said
    assert run.read_metrics()["status"] == "completed"


def test_odd_settings_cost_themselves_alone(lives: Path) -> None:
    (run,) = list_run_folders(lives / "accelerate odd-values")
    settings = run.read_metrics()["config"]
    assert settings["lr"] == pytest.approx(0.1)
    assert (settings["none"], settings["list"], settings["deep.a.b"]) == (None, [1, 2], 1)
    assert (settings["path"], settings["object"]) == ("x", "odd")
    assert [each.step for each in read_events(run).Images("picture")] == [3]


def test_accelerates_writer_is_a_tracker_too(lives: Path) -> None:
    """In version 1.0 it was nothing else."""
    assert (lives / "accelerate writer" / "said").read_text() == "0001-x True\n"
    (run,) = list_run_folders(lives / "accelerate writer")
    assert read_events(run).Scalars("loss")[-1].wall_time == 123.0
