"""An ONNX graph without what nobody runs: comments, long names, constants that are there twice."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

KINDS = (np.uint8, np.int8, np.uint16, np.int16, np.int32)
LEAST = 64  # bytes of a constant from which a cast to its type is the smaller


def made_small(model: Any, notes: Mapping[str, str]) -> Any:
    """The same model, small, with `notes` as its metadata.

    - Comments, traces, shapes of inner values and the functions that nothing calls go.
    - Inner values have short names, of the inputs and outputs their own.
    - Equal constants are one. Integers that fit a narrower type are kept in it and cast, which
      runtimes do once, when they load the file.
    """
    graph = model.graph
    for each in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        each.ClearField("doc_string")
        if hasattr(each, "metadata_props"):
            del each.metadata_props[:]
    del graph.value_info[:]
    if not {node.domain for node in graph.node} - {"", "ai.onnx"}:
        del model.functions[:]
        kept = [each for each in model.opset_import if each.domain in ("", "ai.onnx")]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    _once(graph)
    _narrow(graph)
    _rename(graph)
    graph.name, model.producer_name, model.producer_version = "bitfold", "bitfold", ""
    for name, value in notes.items():
        model.metadata_props.add(key=name, value=value)
    return model


def _once(graph: Any) -> None:
    """Have equal constants once, and no constant that nothing reads."""
    from onnx import numpy_helper

    first: dict[Any, str] = {}
    same: dict[str, str] = {}
    for each in graph.initializer:
        array = numpy_helper.to_array(each)
        key = each.data_type, array.shape, array.tobytes()
        same[each.name] = first.setdefault(key, each.name)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    read = {name for node in graph.node for name in node.input}
    read |= {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _narrow(graph: Any) -> None:
    """Keep integers of 64 bits in as few bytes as hold them."""
    from onnx import TensorProto, helper, numpy_helper

    casts, kept = [], []
    for each in graph.initializer:
        array = numpy_helper.to_array(each)
        narrow = _narrower(array) if array.dtype == np.int64 and array.nbytes >= LEAST else None
        if narrow is None:
            tensor = numpy_helper.from_array(array, each.name)
        else:
            tensor = numpy_helper.from_array(array.astype(narrow), f"{each.name} narrow")
            casts.append(helper.make_node("Cast", [tensor.name], [each.name], to=TensorProto.INT64))
        kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _narrower(array: Any) -> Any:
    for kind in KINDS:
        limits = np.iinfo(kind)
        if limits.min <= array.min() and array.max() <= limits.max:
            return kind
    return None


def _rename(graph: Any) -> None:
    outside = {each.name for each in (*graph.input, *graph.output)}
    short = (name for name in _names() if name not in outside)
    names: dict[str, str] = {"": ""} | {name: name for name in outside}

    def named(name: str) -> str:
        if name not in names:
            names[name] = next(short)
        return names[name]

    for each in graph.initializer:
        each.name = named(each.name)
    for node in graph.node:
        node.name = ""
        for ends in (node.input, node.output):
            for place, name in enumerate(ends):
                ends[place] = named(name)


def _names() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    before = [""]
    while True:
        before = [start + letter for start in before for letter in letters]
        yield from before
