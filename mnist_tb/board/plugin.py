"""The server side of the Live tab: a few read-only addresses below /data/plugin/live/.

It opens no files of the log folder: all that it knows of runs comes from TensorBoard's data provider, so that it works
with both loaders. https://github.com/tensorflow/tensorboard/blob/master/ADDING_A_PLUGIN.md
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.data import provider
from tensorboard.plugins import base_plugin
from werkzeug import Request, Response

from mnist_tb.board.groups import mean_curves
from mnist_tb.board.series import content, newest, notes_of, statuses
from mnist_tb.board.snapshot import Snapshot
from mnist_tb.environment.console import read_console
from mnist_tb.events import status, tags
from mnist_tb.events.curves import find_curves, find_measured, thin

_STATIC = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_KINDS, _SPLITS = ("loss", "accuracy"), ("train", "val")
_PICTURES = (tags.RESULTS, tags.PREDICTIONS)
"""The final result, or until it is there the newest predictions for the watched images."""
_READ, _SENT = 2**31 - 1, 400
"""How many points of a curve are read, all that there are: fewer would be drawn at random. How many are sent."""
_MOST_PRINTED = 2**16
"""Bytes of a run's console.log that are sent."""
_MOST_RUNS = 200
"""How many runs are averaged at once."""

Answer = Callable[[Request], Response]
Application = Callable[..., Iterable[bytes]]


class LivePlugin(base_plugin.TBPlugin):
    """The tab, and its addresses: of runs, their curves, pictures and weights, and of the files in static/."""

    plugin_name = status.PLUGIN

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._provider = context.data_provider
        self._logdir = context.logdir
        self._snapshot = Snapshot()
        self._lock = threading.Lock()
        self._read_at = -math.inf

    def get_plugin_apps(self) -> dict[str, Application]:
        served = [path for path in _STATIC.rglob("*") if path.suffix in _TYPES]
        files = {f"/static/{path.relative_to(_STATIC).as_posix()}": _static(path) for path in served}
        routes = {
            "/runs": self._runs,
            "/curves": self._curves,
            "/picture": self._picture,
            "/weights": self._weights,
            "/means": self._means,
            "/epochs": self._epochs,
            "/samples": self._samples,
            "/result": self._result,
            "/console": self._console,
        }
        return {**files, **{route: _get_only(answer) for route, answer in routes.items()}}

    def is_active(self) -> bool:
        return True  # it says itself that there are no runs yet

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(es_module_path="/static/live.js", tab_name="Live")

    def _runs(self, request: Request) -> Response:
        """The runs that have changed since answer number `since`, and the names of all in their order."""
        asked = time.monotonic()
        with self._lock:  # what is read is stored in the order in which it was read
            if self._read_at < asked:  # else it was read for another page while this one waited
                began = time.monotonic()
                self._snapshot.take(self._read_all(request))
                self._read_at = began
            answer = self._snapshot.answer(request.args.get("since", 0, type=int))
        return _json(request, answer)

    def _read_all(self, request: Request) -> list[dict[str, Any]]:
        where = _where(request)
        # Without a first event it is not a run yet; the fast loader does not list it at all.
        started = {r.run_name: r.start_time for r in self._provider.list_runs(**where) if r.start_time is not None}
        known = statuses(self._provider, where)
        notes = notes_of(self._provider, where)
        found = []
        for run, start in started.items():
            entry: dict[str, Any] = {"run": run, "started": start, **notes.get(run, {})}
            if run in known:
                said, written = known[run]
                entry |= {**asdict(said), "written": written}
            found.append(entry)
        foreign = [entry for entry in found if "state" not in entry]
        if foreign:
            self._read_foreign(where, foreign)
        return found

    def _read_foreign(self, where: dict[str, Any], entries: Iterable[dict[str, Any]]) -> None:
        """What scalars say of runs without a status: the last step and time, and the newest loss and accuracy."""
        runs = provider.RunTagFilter(runs=[entry["run"] for entry in entries])
        scalars = self._provider.list_scalars(**where, plugin_name="scalars", run_tag_filter=runs)
        last = self._provider.read_last_scalars(**where, plugin_name="scalars", run_tag_filter=runs)
        for entry in entries:
            series, values = scalars.get(entry["run"], {}), last.get(entry["run"], {})
            written = max((s.max_wall_time for s in series.values()), default=entry["started"] or 0.0)
            entry |= {
                "state": status.UNKNOWN,
                "written": written,
                "step": max((s.max_step for s in series.values()), default=0),
            }
            for (kind, split), (tag, unit) in _shown_curves({tag: [last] for tag, last in values.items()}).items():
                entry[kind if split == "train" else f"val_{kind}"] = values[tag].value / unit

    def _curves(self, request: Request) -> Response:
        """The curves of a run, thinned: kind → split → [step, value, wall time]; from step `from` to step `to`."""
        run, where = request.args.get("run", ""), _where(request)
        first, last = (request.args.get(key, default, type=int) for key, default in (("from", -(2**63)), ("to", 2**63)))
        only = provider.RunTagFilter(runs=[run])
        series = self._provider.list_scalars(**where, plugin_name="scalars", run_tag_filter=only).get(run, {})
        points: dict[str, Any] = {}
        if wanted := list(find_curves(series).values()):
            these = provider.RunTagFilter(runs=[run], tags=wanted)
            read = self._provider.read_scalars(**where, plugin_name="scalars", downsample=_READ, run_tag_filter=these)
            points = read.get(run, {})
        curves: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
        for (kind, split), (tag, unit) in _shown_curves(points).items():
            within = [one for one in points[tag] if first <= one.step <= last]
            kept = thin(within, _SENT, lambda one: one.value, lambda one: one.step)
            curves[kind][split] = [[one.step, one.value / unit, round(one.wall_time, 3)] for one in kept]
        return _json(request, {"run": run, "curves": curves})

    def _means(self, request: Request) -> Response:
        """The mean curves of the configurations of some runs, `run=a&run=b`; see `groups.mean_curves`.

        left_out: the runs beyond those that are averaged at once.
        """
        runs = list(dict.fromkeys(request.args.getlist("run")))
        found = mean_curves(self._provider, _where(request), runs[:_MOST_RUNS], _READ, _SENT)
        return _json(request, {**found, "left_out": runs[_MOST_RUNS:]})

    def _picture(self, request: Request) -> Response:
        """The newest picture of a run, a PNG; an empty answer, 204, where it has none."""
        run, where = request.args.get("run", ""), _where(request)
        these = provider.RunTagFilter(runs=[run], tags=_PICTURES)
        read = self._provider.read_blob_sequences(**where, plugin_name="images", downsample=1, run_tag_filter=these)
        for tag in _PICTURES:
            data = read.get(run, {}).get(tag, ())
            if data and len(data[-1].values) > 2:  # width, height, the picture
                with suppress(errors.PublicError):  # the file is damaged here, or the run has just gone
                    blob = self._provider.read_blob(ctx=where["ctx"], blob_key=data[-1].values[2].blob_key)
                    if blob.startswith(b"\x89PNG"):
                        return http_util.Respond(request, blob, "image/png")
        return Response(status=204)  # a 404 would be an error in the browser's console

    def _weights(self, request: Request) -> Response:
        """The weights of a run, the best or `epoch`'s, as encoded by `weights_export`; 204 where it has none."""
        epoch = request.args.get("epoch")
        return self._binary(request, tags.LIVE_WEIGHTS if epoch is None else f"{tags.LIVE_EPOCH}{epoch}")

    def _samples(self, request: Request) -> Response:
        """The watched test images of a run, as encoded by `weights_export`; 204 where it has none."""
        return self._binary(request, tags.LIVE_SAMPLES)

    def _result(self, request: Request) -> Response:
        """The confusion matrix of a run's test result, with images, from `weights_export`; 204 where it has none."""
        return self._binary(request, tags.LIVE_RESULT)

    def _console(self, request: Request) -> Response:
        """The end of what a run printed, text; 204 where nothing is kept, or its folder is on another machine."""
        run, where = request.args.get("run", ""), _where(request)
        is_known = any(each.run_name == run for each in self._provider.list_runs(**where))
        text = read_console(Path(self._logdir) / run, _MOST_PRINTED) if self._logdir and is_known else None
        return Response(status=204) if text is None else http_util.Respond(request, text, "text/plain")

    def _binary(self, request: Request, tag: str) -> Response:
        run, where = request.args.get("run", ""), _where(request)
        found = newest(self._provider, where, [run], tag)
        if run not in found:
            return Response(status=204)
        return http_util.Respond(request, content(found[run]), "application/octet-stream")

    def _epochs(self, request: Request) -> Response:
        """The epochs of a run whose weights there are, ascending, each with its step: `{"epochs": [[0, 0], …]}`."""
        run, where = request.args.get("run", ""), _where(request)
        only = provider.RunTagFilter(runs=[run])
        known = self._provider.list_tensors(**where, plugin_name=status.PLUGIN, run_tag_filter=only).get(run, {})
        numbers = {tag.removeprefix(tags.LIVE_EPOCH): series.max_step for tag, series in known.items()}
        epochs = sorted((int(epoch), step) for epoch, step in numbers.items() if epoch.isdecimal())
        return _json(request, {"epochs": epochs})


def _shown_curves(points: Mapping[str, Iterable[Any]]) -> dict[tuple[str, str], tuple[str, float]]:
    """(kind, split) → tag and unit, of the curves that the tab shows."""
    return {key: found for key, found in find_measured(points).items() if key[1] in _SPLITS}


def _where(request: Request) -> dict[str, Any]:
    """The arguments of a data provider that say which experiment is asked for."""
    return {"ctx": plugin_util.context(request.environ), "experiment_id": plugin_util.experiment_id(request.environ)}


def _json(request: Request, content: Any) -> Response:
    """An answer in JSON: every one goes through here. A number that JSON cannot hold, such as infinity, is null."""
    return http_util.Respond(request, json.dumps(_finite(content), allow_nan=False), "application/json")


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, int | float) and not abs(content) <= sys.float_info.max else content


def _get_only(answer: Answer) -> Application:
    def answer_to(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            allowed = [("Allow", "GET, HEAD")]
            return http_util.Respond(request, "GET and HEAD only", "text/plain", code=405, headers=allowed)
        try:
            return answer(request)
        except errors.NotFoundError as error:
            return http_util.Respond(request, str(error), "text/plain", code=404)

    @Request.application
    def respond(request: Request) -> Response:
        response = answer_to(request)
        response.headers["X-Content-Type-Options"] = "nosniff"  # else TensorBoard prints a warning
        return response

    return respond


def _static(path: Path) -> Application:
    content = path.read_bytes()
    return _get_only(lambda request: http_util.Respond(request, content, _TYPES[path.suffix]))
