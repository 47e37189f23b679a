"""The schema of a configuration: every key with its type, its bounds and its default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LONGEST_NAME = 40
"""Characters in a run's name."""
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:(0|[1-9][0-9]?))$")]
NAME_RULE = (
    f"must be 1 to {LONGEST_NAME} letters, digits, dots, hyphens or underscores, beginning with a letter or digit"
)
RunName = Annotated[str, Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}$")]
_MIRROR = r"^https?://[^\s\[\]@?#/:]+(:\d{1,5}(/[^\s\[\]@?#]*)?|(/[^\s\[\]?#]*)?)/$"
"""An @ in the path is none of a password, if no colon is before it."""
DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "qmnist", "emnist_digits", "digits"]


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Group):
    """Which dataset, and where its files are."""

    name: DatasetName = "mnist"
    root: Annotated[str, Field(min_length=1)] = "data"
    download: bool = True
    mirror: Annotated[str, Field(pattern=_MIRROR)] | None = None
    download_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    fallback: Literal["digits"] | None = "digits"
    validation: Annotated[int, Field(ge=1)] = 5_000
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def without_fallback(self) -> Data:
        """For a run that there is already: other data than its own are of no use to it."""
        return self.model_copy(update={"fallback": None})


class Model(Group):
    """The network's size."""

    channels: Annotated[
        tuple[
            Annotated[int, Field(ge=1, le=4096)],
            Annotated[int, Field(ge=1, le=4096)],
            Annotated[int, Field(ge=1, le=4096)],
        ],
        Field(strict=False),
    ] = (16, 32, 64)


_Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Group):
    """The optimiser, and its hyperparameters."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    betas: Annotated[tuple[_Beta, _Beta], Field(strict=False)] = (0.9, 0.999)


class Schedule(Group):
    """How the learning rate changes over the steps: `train.lr` is its highest value.

    epochs: over which the schedule, `augment.until` and `averaging.start` are laid out; None: all of the training.
    after: the learning rate of later epochs; None: `train.lr`.
    """

    name: Literal["constant", "cosine", "one_cycle"] = "constant"
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    after: Annotated[float, Field(gt=0)] | None = None


class Augment(Group):
    """Random augmentation: how far each training image is moved, each time anew; after `until` no longer."""

    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift: Annotated[float, Field(ge=0, le=14)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    warp: Annotated[float, Field(ge=0, le=14)] = 0.0
    until: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def enabled(self) -> bool:
        return any((self.rotate, self.shift, self.scale, self.shear, self.warp))


class Averaging(Group):
    """Whether the weights that are evaluated and kept are an average over the updates."""

    name: Literal["none", "ema", "swa"] = "none"
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Train(Group):
    """The training loop: its length, batch size and learning rate."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    lr: Annotated[float, Field(gt=0)] = 0.001
    evaluate_every: Annotated[int, Field(ge=0)] = 1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Tracking(Group):
    """What is written to the event file, and how often."""

    enabled: bool = True
    scalars_every: Annotated[int, Field(ge=1)] = 10
    histograms_every: Annotated[int, Field(ge=0)] = 1
    images_every: Annotated[int, Field(ge=0)] = 1
    weights_every: Annotated[int, Field(ge=0)] = 1
    projector: bool = True
    code: bool = True
    system_seconds: Annotated[float, Field(ge=0)] = 5.0
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0


class Config(Group):
    """Everything that decides a run. Immutable; `load_config` reads one, `dump_config` writes it.

    The default of a key that is added later is what was done before: runs without the key are shown with that default.
    """

    name: RunName = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Device = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    averaging: Averaging = Averaging()
    train: Train = Train()
    tracking: Tracking = Tracking()

    @field_validator("*", mode="before")
    @classmethod
    def _group_is_mapping(cls, value: Any, info: Any) -> Any:
        annotation = cls.model_fields[info.field_name].annotation
        if is_group(annotation) and not isinstance(value, (dict, Group)):
            raise ValueError("must be a group of keys, such as `train: {epochs: 10}`")
        return value

    @model_validator(mode="after")
    def _fallback_is_another(self) -> Config:
        if self.data.name == "digits" and self.data.fallback is not None:
            # The built-in data cannot be missing: config.yaml of a run that has fallen back says what was done.
            object.__setattr__(self, "data", self.data.model_copy(update={"fallback": None}))
        return self


def is_group(annotation: Any) -> bool:
    """Whether a field's type is a group of keys."""
    return isinstance(annotation, type) and issubclass(annotation, Group)
