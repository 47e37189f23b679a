"""The folder of a Tracker's run, while a process writes to it: its lock, what was asked for, how it ends."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from mnist_tb.config import strict_yaml
from mnist_tb.config.plain import flatten, nested
from mnist_tb.errors import InputError, TrainingError, command_line
from mnist_tb.events import records
from mnist_tb.runs.files import is_temporary, read_ours, trim, write_atomically
from mnist_tb.runs.folder import KEYS_OF_THE_TRAINING, Run, create_run, is_trackers, package_versions, reserved
from mnist_tb.runs.notes import Notes, edit_notes
from mnist_tb.runs.values import mapping, number, whole

_ID = re.compile("[0-9a-f]{12}")
Charts = Mapping[str, Mapping[str, Sequence[str]]]
"""The Custom Scalars tab: category → chart title → tags."""


@dataclass(frozen=True)
class Asked:
    """What a Tracker was asked for, as its docstring says; kept in the run's metrics.json, for when it is resumed."""

    steps: int = 0
    dataset: str = ""
    charts: Charts | None = None
    code: bool = True
    system_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Raises InputError."""
        if not isinstance(self.dataset, str):
            raise InputError(f"dataset is {self.dataset!r}, but must be a string")
        for name in ("steps", "system_seconds"):
            value = getattr(self, name)
            if isinstance(value, str) or not value >= 0:
                raise InputError(f"{name} is {value!r}, but must be a number that is not negative")
        object.__setattr__(self, "steps", int(self.steps))

    @classmethod
    def read(cls, metrics: Mapping[str, Any], **changes: Any) -> Asked:
        """From a metrics.json, also of version 1.0.0."""
        known = {"dataset": metrics.get("dataset") or "", **mapping(metrics.get("asked")), **changes}
        return cls(**{each.name: known[each.name] for each in fields(cls) if each.name in known})


@dataclass
class RunFiles:
    """A run of somebody's training, reserved for this process; a context manager that lets go of it.

    settings: flat, as far as they are known. step, seconds: so far. start: as for `EventWriter`. Paths are absolute.
    """

    run: Run
    asked: Asked
    id: str
    settings: Mapping[str, Any]
    step: int = 0
    seconds: float = 0.0
    start: int | None = 0
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @classmethod
    def create(
        cls, logdir: Path, name: str, settings: Mapping[str, Any], config: str, asked: Asked, notes: Notes
    ) -> RunFiles:
        """A new folder in a log folder. settings: flat. config: the same as YAML. Raises InputError, TrainingError."""
        own = uuid.uuid4().hex[:12]
        with contextlib.ExitStack() as held:
            run = create_run(logdir.absolute(), name, config, _first_metrics(own, settings, asked), held=held)
            edit_notes(run, notes.tags, note=notes.note)
            return cls(run, asked, own, settings, _held=held.pop_all())

    @classmethod
    def adopt(cls, folder: Path, asked: Asked, notes: Notes, start: int | None) -> RunFiles:
        """A folder that the user has chosen: nothing in it is touched but what a Tracker has written.

        Raises InUseError if somebody has it, InputError if it is a run of `mnist-tb train` or cannot be written.
        """
        run = Run(folder.absolute())
        known = read_ours(run.metrics)
        if not is_trackers(known) and "train.epochs" in mapping(known.get("config")):
            raise InputError(f"{folder}: is a run of mnist-tb train; a training of yours needs a folder of its own")
        home = run.home if _own_id(known) else run.path / records.OWN
        try:
            if home.is_dir() and not _own_id(read_ours(home / "metrics.json")) and _others(home):
                raise InputError(f"{home}: this folder is kept for the files of a run, but has others in it")
            (home / "checkpoints").mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as held:
                held.enter_context(reserved(home / "checkpoints", run.path))
                known = read_ours(home / "metrics.json")
                own, settings = _own_id(known) or uuid.uuid4().hex[:12], mapping(known.get("config"))
                step, seconds = _so_far(known) if start is None else (max(start - 1, 0), 0.0)
                first = {**_first_metrics(own, settings, asked), "started": known.get("started") or time.time()}
                kept = {key: value for key, value in known.items() if key not in KEYS_OF_THE_TRAINING}
                run.write_metrics({**kept, **first}, home)
                if notes != Notes():
                    edit_notes(run, notes.tags, note=notes.note or None)
                return cls(run, asked, own, settings, step, seconds, start, held.pop_all())
        except OSError as error:
            raise InputError(f"{folder}: no run can be created here: {error.strerror}") from None

    @classmethod
    def go_on(cls, run: Run) -> RunFiles:
        """A run that this program has closed. Raises InputError."""
        with contextlib.ExitStack() as held:
            held.enter_context(run.in_use())
            known = run.read_metrics()
            run.restart_metrics()
            own, settings = _own_id(known) or uuid.uuid4().hex[:12], mapping(known.get("config"))
            return cls(run, Asked.read(known), own, settings, *_so_far(known), None, held.pop_all())

    @classmethod
    def resume(cls, folder: Path, state: Mapping[str, Any], steps: int = 0) -> RunFiles:
        """Cut a run back to where a state was taken. Raises InputError if it is not this run's, or somebody has it."""
        run = Run(folder.absolute())
        known = run.read_metrics()
        if not is_trackers(known):
            raise InputError(
                f"{run.path}: is a run of mnist-tb train; resume it with: {command_line('resume', run.path)}"
            )
        with contextlib.ExitStack() as held:
            held.enter_context(run.in_use())
            own = _own_id(known) or uuid.uuid4().hex[:12]
            lengths = _checked_lengths(run, own, state)
            trim(run.path, lengths, own)
            run.restart_metrics(id=own)
            step = int(state["step"])
            asked = Asked.read(known, **({"steps": steps} if steps else {}))
            seconds, settings = float(state.get("seconds", 0.0)), mapping(known.get("config"))
            return cls(run, asked, own, settings, step, seconds, step + 1, held.pop_all())

    def __enter__(self) -> RunFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # before it was there: nobody else says how it ended
            with contextlib.suppress(TrainingError):
                self.end(status="failed", error=str(error), ended=time.time())
        self._held.close()

    def add_settings(self, settings: Mapping[str, Any]) -> None:
        """More settings, flat, which are known only now. Raises TrainingError if they cannot be written."""
        is_own = self._has_own_config()
        self.settings = {**self.settings, **settings}
        with self._or_failed("its settings cannot be written"):
            if is_own:
                write_atomically(self.run.config, strict_yaml.dump(nested(self.settings)).encode())
            self.run.update_metrics(config=self.settings)

    def _has_own_config(self) -> bool:
        """Whether config.yaml is ours to write: LightningCLI keeps a file of that name beside the run's event files."""
        if self.run.home != self.run.path:
            return True
        try:
            return flatten(strict_yaml.read(self.run.config).values) == dict(self.settings)
        except InputError:
            return False

    def end(self, **changes: Any) -> None:
        """Set the last keys of metrics.json, and only then let go of the run. Raises TrainingError."""
        with self._held, self._or_failed("how the run ended cannot be written"):
            self.run.update_metrics(**changes)

    @contextlib.contextmanager
    def _or_failed(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, InputError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise TrainingError(f"{self.run.path}: {what}: {reason}") from None


def _own_id(metrics: Mapping[str, Any]) -> str | None:
    """The id in a metrics.json that a Tracker has written; None for any other, whatever keys it has."""
    own = metrics.get("id")
    return own if metrics.get("kind") == "tracked" and isinstance(own, str) and _ID.fullmatch(own) else None


def _so_far(metrics: Mapping[str, Any]) -> tuple[int, float]:
    """Steps and seconds of the run, as a metrics.json says."""
    return whole(metrics.get("step")) or 0, number(metrics.get("train_seconds")) or 0.0


def _first_metrics(own: str, settings: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """The metrics.json of a run that begins; its flat settings are not those of `mnist-tb train`."""
    return {
        "status": "running",
        "kind": "tracked",
        "id": own,
        "started": time.time(),
        "dataset": asked.dataset or None,
        "config": dict(settings),
        "asked": asdict(asked),
        "versions": package_versions("mnist-tb", "torch", "tensorboard"),
    }


def _others(home: Path) -> list[str]:
    """What is in a folder before it is ours, but for what is left of a process or a machine that failed there."""
    there = (p for p in home.iterdir() if p.name not in ("checkpoints", ".lock") and not is_temporary(p.name))
    return [path.name for path in there if not (path.is_file() and path.stat().st_size == 0)]


def _checked_lengths(run: Run, own: str, state: Mapping[str, Any]) -> dict[str, int]:
    """The lengths of the event files at a state. Raises InputError if it is not one of this run."""
    known = mapping(dict(state) if isinstance(state, Mapping) else None)
    lengths, step = mapping(known.get("events")), known.get("step")
    if not lengths or not all(isinstance(each, int) and each >= 0 for each in (step, *lengths.values())):
        raise InputError(
            f"{run.path}: cannot be resumed from this state, which is empty or damaged; save what `state_dict` returns"
            " in the process that logs"
        )
    if state.get("run", own) != own:
        raise InputError(f"{run.path}: cannot be resumed from this state, which is of another run")
    there = records.sizes(run.path)
    if any(there.get(name, -1) < length for name, length in lengths.items()):
        raise InputError(
            f"{run.path}: cannot be resumed from this state: what was logged up to there is gone, for the run has been"
            " resumed from an earlier state, or this state is of another run"
        )
    return dict(lengths)
