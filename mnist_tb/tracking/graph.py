"""A network in, its graph for TensorBoard's Graphs tab out.

By torch.fx, in place of the TorchScript tracer behind `SummaryWriter.add_graph`: a node for each layer, with its name
in the code and its shapes, in milliseconds instead of half a second. https://docs.pytorch.org/docs/stable/fx.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensorboard.compat.proto import attr_value_pb2, graph_pb2, node_def_pb2, tensor_shape_pb2, versions_pb2
from torch import nn
from torch.fx import GraphModule, Interpreter, Node, Tracer


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


def draw(model: nn.Module, input_shape: Sequence[int]) -> graph_pb2.GraphDef:
    """The layers of a model without data-dependent control flow, for an input of the given shape.

    Parameters are nodes that feed their layer, so that their sizes can be read.
    """
    traced = GraphModule(model, _LayerTracer().trace(model))
    example = torch.zeros(*input_shape, device=next(model.parameters()).device)
    was_training = model.training
    with torch.inference_mode():
        _ShapeReader(traced.eval()).run(example)
    model.train(was_training)
    modules = dict(traced.named_modules())
    nodes: list[node_def_pb2.NodeDef] = []
    for node in traced.graph.nodes:
        inputs = [_name(source) for source in node.all_input_nodes]
        if node.op == "call_module":
            module = modules[str(node.target)]
            scope = _name(node)
            for name, parameter in module.named_parameters():
                nodes.append(_node(f"{scope}/{name}", "Parameter", [], list(parameter.shape)))
                inputs.append(f"{scope}/{name}")
            nodes.append(
                _node(f"{scope}/{type(module).__name__}", type(module).__name__, inputs, _shape(node), repr(module))
            )
        else:
            op = {"placeholder": "Input", "output": "Output"}.get(node.op, str(node.target))
            nodes.append(_node(_name(node), op, inputs, _shape(node)))
    outputs = {n.name.rpartition("/")[0]: n.name for n in nodes if "/" in n.name and n.op != "Parameter"}
    for proto in nodes:  # an edge begins at the operation inside the box of a layer
        proto.input[:] = [outputs.get(source, source) for source in proto.input]
    return graph_pb2.GraphDef(node=nodes, versions=versions_pb2.VersionDef(producer=22))


def _name(node: Node) -> str:
    return str(node.target).replace(".", "/") if node.op == "call_module" else node.name


def _shape(node: Node) -> list[int]:
    shape: list[int] = node.meta["shape"]
    return shape


def _node(name: str, op: str, inputs: list[str], shape: list[int], settings: str = "") -> node_def_pb2.NodeDef:
    dimensions = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    shapes = attr_value_pb2.AttrValue.ListValue(shape=[tensor_shape_pb2.TensorShapeProto(dim=dimensions)])
    attributes = {"_output_shapes": attr_value_pb2.AttrValue(list=shapes)}
    if settings:
        attributes["settings"] = attr_value_pb2.AttrValue(s=settings.encode())
    return node_def_pb2.NodeDef(name=name, op=op, input=inputs, attr=attributes)
