"""A graph with its weights inside, out of one that has them as inputs: bytes, no package.

Only what is needed of protobuf's wire format is in this file: a message is a sequence of fields,
each a key (number * 8 + wire type) and a value; ONNX's numbers are those of onnx.proto.
"""

import numpy as np

GRAPH = 7  # of ModelProto
INITIALIZER, INPUT = 5, 11  # of GraphProto
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
    pieces = []
    for number, field, content in fields(model):
        if number != GRAPH:
            pieces.append(field)
            continue
        kept = [
            inner
            for number, inner, value in fields(content)
            if number != INPUT or _name(value) not in weights
        ]
        kept += [_field(INITIALIZER, _tensor(name, weights[name])) for name in sorted(weights)]
        pieces.append(_field(GRAPH, b"".join(kept)))
    return b"".join(pieces)


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


def _tensor(name, array):
    array = np.ascontiguousarray(array)
    described = b"".join(_varint(DIMS << 3) + _varint(length) for length in array.shape)
    described += _varint(DATA_TYPE << 3) + _varint(TYPES[array.dtype.name])
    described += _field(TENSOR_NAME, name.encode("utf-8"))
    return described + _field(RAW_DATA, array.tobytes())


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
