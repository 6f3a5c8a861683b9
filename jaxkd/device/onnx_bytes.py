"""A graph with its weights inside, out of one or several that have them as inputs: no package.

Only what is needed of protobuf's wire format is in this file: a message is a sequence of fields,
each a key (number * 8 + wire type) and a value; ONNX's numbers are those of onnx.proto.
"""

import numpy as np

GRAPH = 7  # of ModelProto
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12  # of GraphProto
LABELS = (2, 10, 13)  # of GraphProto, which no computation needs: name, text, shapes between
NODE_INPUT, NODE_OUTPUT, NODE_NAME, ATTRIBUTE = 1, 2, 3, 5  # of NodeProto
SUBGRAPHS = (6, 11)  # of AttributeProto
NAME = 1  # of ValueInfoProto
DIMS, DATA_TYPE, TENSOR_NAME, RAW_DATA = 1, 2, 8, 9  # of TensorProto
TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "float16": 10,
    "float64": 11,
}


def with_weights(model, weights):
    """The model's bytes, with `weights` (arrays by name) as constants instead of as inputs."""
    outside, graph = _parts(model)
    kept = [
        field
        for number, field, content in fields(graph)
        if number != INPUT or _name(content) not in weights
    ]
    for name in sorted(weights):
        kept += _initializer(name, weights[name])
    return _model(outside, kept)


class Piece:
    """A graph that `joined` has as one of several.

    Args:
      model: its bytes.
      weights: arrays by name, which become constants.
      names: of inputs that other pieces have too, what they are called in the whole.
    """

    def __init__(self, model, weights, names):
        self.model, self.weights, self.names = model, weights, names


def joined(pieces, reads, makes):
    """One model of several: what a piece `makes`, the next `reads`.

    Other inputs and outputs, and all weights, get the piece's number in front: 2/past.key.

    Raises ValueError for pieces of unlike versions, and for nodes with graphs inside.
    """
    kept, known, outside = [], set(), None
    for i, piece in enumerate(pieces):
        own, graph = _parts(piece.model)
        if outside is not None and sorted(own) != sorted(outside):
            raise ValueError("graphs of unlike versions")
        outside = own
        names = dict(piece.names)
        if i:
            names[reads] = f"{i - 1}/{makes}"
        first, last = (reads,) if not i else (), (makes,) if i == len(pieces) - 1 else ()
        names.update((name, name) for name in first + last)

        def renamed(name, names=names, i=i):
            return names.get(name, f"{i}/{name}") if name else name

        for number, _, content in fields(graph):
            if number == NODE:
                kept.append(_field(NODE, b"".join(_node(content, renamed))))
            elif number == INPUT:
                name = _name(content)
                if name in piece.weights or (i and name == reads) or renamed(name) in known:
                    continue
                known.add(renamed(name))
                kept.append(_field(INPUT, _named(content, renamed(name))))
            elif number == OUTPUT:
                name = _name(content)
                if name != makes or last:
                    kept.append(_field(OUTPUT, _named(content, renamed(name))))
            elif number == INITIALIZER:
                kept.append(_field(INITIALIZER, _named(content, renamed, TENSOR_NAME)))
            elif number not in LABELS:
                raise ValueError(f"field {number} of a graph")
        for name in sorted(piece.weights):
            kept += _initializer(renamed(name), piece.weights[name])
    kept.append(_field(2, b"joined"))
    return _model(outside, kept)


def inputs_of(model):
    """Names of a model's inputs."""
    return [_name(content) for number, _, content in fields(_parts(model)[1]) if number == INPUT]


def _parts(model):
    """What stands around the graph, and the graph."""
    outside, graph = [], b""
    for number, field, content in fields(model):
        if number == GRAPH:
            graph = content
        else:
            outside.append(field)
    return outside, graph


def _model(outside, pieces):
    """A model's bytes; the pieces of its graph are copied once, however large."""
    size = sum(len(piece) for piece in pieces)
    return b"".join(outside + [_varint(GRAPH << 3 | 2) + _varint(size)] + pieces)


def _node(content, renamed):
    for number, field, value in fields(content):
        if number in (NODE_INPUT, NODE_OUTPUT, NODE_NAME):
            yield _field(number, renamed(value.decode("utf-8")).encode("utf-8"))
            continue
        if number == ATTRIBUTE and any(inner in SUBGRAPHS for inner, _, _ in fields(value)):
            raise ValueError("a node has a graph inside")
        yield field


def fields(message):
    """The fields of a message: number, the field's bytes, and its content if it has a length."""
    start = 0
    while start < len(message):
        key, at = _read_varint(message, start)
        kind, content = key & 7, None
        if kind == 0:
            _, at = _read_varint(message, at)
        elif kind == 1:
            at += 8
        elif kind == 2:
            length, at = _read_varint(message, at)
            content = message[at : at + length]
            at += length
        elif kind == 5:
            at += 4
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(message):
            raise ValueError("a field is longer than its message")
        yield key >> 3, message[start:at], content
        start = at


def _name(value_info):
    for number, _, content in fields(value_info):
        if number == NAME:
            return content.decode("utf-8")
    return None


def _named(content, name, where=NAME):
    """A value or tensor with another name, or with what a function makes of its own."""
    made = []
    for number, field, value in fields(content):
        if number == where:
            new = name(value.decode("utf-8")) if callable(name) else name
            field = _field(where, new.encode("utf-8"))
        made.append(field)
    return b"".join(made)


def _initializer(name, array):
    """Pieces of the field; the array's own bytes are the last, not copied."""
    array = np.ascontiguousarray(array)
    described = b"".join(_varint(DIMS << 3) + _varint(length) for length in array.shape)
    described += _varint(DATA_TYPE << 3) + _varint(TYPES[array.dtype.name])
    described += _field(TENSOR_NAME, name.encode("utf-8"))
    described += _varint(RAW_DATA << 3 | 2) + _varint(array.nbytes)
    size = _varint(len(described) + array.nbytes)
    raw = array.reshape(-1).view(np.uint8)
    return [_varint(INITIALIZER << 3 | 2) + size + described, memoryview(raw)]


def _field(number, content):
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def _read_varint(message, at):
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
