"""A network in, its graph for TensorBoard's Graphs tab out.

By torch.fx, in place of the TorchScript tracer behind `SummaryWriter.add_graph`: a node for each layer, with its name
in the code and its shapes, in milliseconds instead of half a second. https://docs.pytorch.org/docs/stable/fx.html
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from tensorboard.compat.proto import attr_value_pb2, graph_pb2, node_def_pb2, tensor_shape_pb2, versions_pb2
from torch import nn
from torch.fx import Graph, Interpreter, Node, Tracer

Given = Sequence[Any] | Mapping[str, Any] | torch.Tensor


class _LayerTracer(Tracer):
    """Treats every module without submodules as a layer, torch's own or not."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


class _ShapeReader(Interpreter):
    """Runs the network and notes the shape of every result; torch's own ShapeProp would import the compiler."""

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = list(result.shape) if isinstance(result, torch.Tensor) else []
        return result


def draw(model: nn.Module, given: Given) -> graph_pb2.GraphDef:
    """The layers of a model without data-dependent control flow, each with the shape of its result.

    given: the shape of its input, then zeros, real or whole; or what it is called with: a tensor, a tuple of arguments,
    or arguments by their names. If it cannot be called so, there are no shapes.
    Parameters are nodes that feed their layer, so that their sizes can be read. What is drawn is a copy in evaluation
    mode, without hooks: the model, its caches and the random state stay as they are. Raises ValueError if the model
    cannot be copied or traced.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            return _graph(copy.deepcopy(model, _memo(model)).eval(), given)
    except Exception as error:
        raise ValueError(f"the graph of {type(model).__name__} cannot be drawn: {error}") from error
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _memo(model: nn.Module) -> dict[int, Any]:
    """What the copy has in place of hooks, and of tensors that deepcopy refuses: results of autograd."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name, value in (*vars(module).items(), *module.named_buffers(recurse=False)):
            if name.endswith("_hooks") and isinstance(value, dict):
                memo[id(value)] = type(value)()
            elif isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return memo


def _graph(model: nn.Module, given: Given) -> graph_pb2.GraphDef:
    traced = _LayerTracer().trace(model)
    for arguments in _inputs(given, traced, next(model.parameters(), torch.empty(0))):
        with suppress(Exception):
            _ShapeReader(model, graph=traced).run(*arguments)
            break
    modules = dict(model.named_modules())
    nodes: list[node_def_pb2.NodeDef] = []
    for node in traced.nodes:
        inputs, shape = [_name(source) for source in node.all_input_nodes], node.meta.get("shape")
        if node.op == "call_module":
            module = modules[str(node.target)]
            scope = _name(node)
            for name, parameter in module.named_parameters():
                nodes.append(_node(f"{scope}/{name}", "Parameter", [], list(parameter.shape)))
                inputs.append(f"{scope}/{name}")
            nodes.append(_node(f"{scope}/{type(module).__name__}", type(module).__name__, inputs, shape, repr(module)))
        else:
            op = {"placeholder": "Input", "output": "Output"}.get(node.op, str(node.target))
            nodes.append(_node(_name(node), op, inputs, shape))
    outputs = {n.name.rpartition("/")[0]: n.name for n in nodes if "/" in n.name and n.op != "Parameter"}
    for proto in nodes:  # an edge begins at the operation inside the box of a layer
        proto.input[:] = [outputs.get(source, source) for source in proto.input]
    return graph_pb2.GraphDef(node=nodes, versions=versions_pb2.VersionDef(producer=22))


def _inputs(given: Given, traced: Graph, like: torch.Tensor) -> list[tuple[Any, ...]]:
    """What to compute the shapes with, one after the other until one fits: on the device of this tensor."""
    if isinstance(given, torch.Tensor):
        given = (given,)
    if isinstance(given, Mapping):
        given = tuple(given[n.target] for n in traced.nodes if n.op == "placeholder" and n.target in given)
    if all(isinstance(size, int) for size in given):
        return [(torch.zeros(*given, dtype=dtype, device=like.device),) for dtype in (like.dtype, torch.int64)]
    copied = (part.detach().to(like.device, copy=True) if isinstance(part, torch.Tensor) else part for part in given)
    return [tuple(copied)]


def _name(node: Node) -> str:
    return str(node.target).replace(".", "/") if node.op == "call_module" else node.name


def _node(name: str, op: str, inputs: list[str], shape: list[int] | None, settings: str = "") -> node_def_pb2.NodeDef:
    attributes = {}
    if shape is not None:
        dimensions = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
        shapes = attr_value_pb2.AttrValue.ListValue(shape=[tensor_shape_pb2.TensorShapeProto(dim=dimensions)])
        attributes["_output_shapes"] = attr_value_pb2.AttrValue(list=shapes)
    if settings:
        attributes["settings"] = attr_value_pb2.AttrValue(s=settings.encode())
    return node_def_pb2.NodeDef(name=name, op=op, input=inputs, attr=attributes)
