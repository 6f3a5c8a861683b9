"""Optuna, which only searches need; it is imported nowhere else."""

try:
    import optuna
except ImportError as error:
    raise ImportError(
        "a search keeps its candidates in Optuna's storage, and Optuna is not installed: "
        "pip install -c constraints.txt -e '.[search]'"
    ) from error

# A line for each trial would repeat what our own display says.
optuna.logging.set_verbosity(optuna.logging.WARNING)

__all__ = ["optuna"]
