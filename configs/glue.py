"""How long models learn on each of GLUE's tasks, and how long its rows are."""

# Passes over the training rows, of the teacher and of its students.
EPOCHS = {
    "cola": (5, 6), "mnli": (4, 6), "mrpc": (5, 8), "qnli": (4, 6), "qqp": (3, 4),
    "rte": (8, 12), "sst2": (1, 2), "stsb": (5, 6), "wnli": (3, 3),
}  # fmt: skip
LONG = {"mnli", "mrpc", "qnli", "qqp", "rte", "stsb", "wnli"}  # two texts a row
