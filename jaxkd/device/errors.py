"""What can be wrong, each with the exit code of the process."""


class RunnerError(Exception):
    """A message for the user; nothing was answered."""

    code = 1


class UsageError(RunnerError):
    """The request is impossible with this bundle."""

    code = 2


class DamagedBundle(RunnerError):
    """A file is not what was written, or a newer or older runner is needed."""

    code = 3


class NoMemory(RunnerError):
    """The budget has no room for one layer."""

    code = 4


class DifferentAnswers(RunnerError):
    """This machine does not answer as the bundle's reference does."""

    code = 5
