"""Names of a mesh's axes: who shares the rows of a batch, and who shares one block."""

DATA = "data"
TENSOR = "tensor"
