"""Names of a mesh's axes: devices that share a batch's rows, and devices that share a block."""

DATA = "data"
TENSOR = "tensor"
