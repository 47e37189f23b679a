"""The configurations that come with the program: `configs/` in a checkout, `mnist_tb/configs/` once installed."""

from __future__ import annotations

from pathlib import Path

from mnist_tb.errors import InputError, did_you_mean

_PACKAGE = Path(__file__).parent.parent


def folder() -> Path:
    """The folder they are in: setup.cfg maps the checkout's into the package, so that there is one copy of each."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """Their names, such as `default` and `sweeps/lr`; those of single runs come first."""
    paths = [path.relative_to(folder()).with_suffix("") for path in folder().rglob("*.yaml")]
    return [path.as_posix() for path in sorted(paths, key=lambda path: (len(path.parts), path))]


def find(name: str | Path, beside: Path | None = None) -> Path:
    """The path of a configuration: a name without `.yaml` is one that comes with the program, all else is a path.

    beside: the file that a path is relative to.
    Raises InputError for an unknown name; whether there is a file at a path is not checked.
    """
    path = Path(name) if beside is None else beside.parent / name
    if Path(name).as_posix() in names():
        return folder() / f"{Path(name).as_posix()}.yaml"
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    raise unknown(str(name), "give a YAML file, or one of")


def unknown(name: str, all_are: str = "there are") -> InputError:
    """The error about a name that none of them has. all_are: what comes before their names, where none is like it."""
    return InputError(f"{name}: there is no configuration of that name{did_you_mean(name, names(), all_are)}")


def summary(name: str) -> str:
    """The first sentence of the comment at the top of one of them."""
    lines = (folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")])
    return comment.partition(". ")[0].rstrip(".")
