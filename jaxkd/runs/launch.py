"""From the words of the command line to a run: the experiment's file, its options, its fields."""

import importlib.util
import inspect
import os
import pathlib
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from jaxkd.core.names import did_you_mean
from jaxkd.runs.command import EXPERIMENTS
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.fields import (
    field_names,
    field_words,
    member,
    resolve_annotations,
    shown_fields,
)
from jaxkd.runtime import hosts

_OPTIONS = ["config", "workdir", "tensorboard", "profile", "multihost", "coordinator", "processes",
            "process", "show", "plan"]  # fmt: skip


def launch(argv: Sequence[str]) -> int:
    """Run an experiment, or print its fields or what it will need; returns the exit status.

    Raises:
      ValueError: for an experiment, option or value that does not exist; with --plan for a
        training that needs more memory than there is.
    """
    file, variant, rest = _which(argv)
    experiment, variant = _load(file, variant)
    _check_options(rest, experiment)
    values = flags.FlagValues()
    config_flags.DEFINE_config_dataclass("config", experiment, flag_values=values, sys_argv=rest)
    flags.DEFINE_string("workdir", "runs", "", flag_values=values)
    flags.DEFINE_boolean("tensorboard", False, "", flag_values=values)
    flags.DEFINE_boolean("profile", False, "", flag_values=values)
    flags.DEFINE_boolean("multihost", False, "", flag_values=values)
    flags.DEFINE_string("coordinator", "", "", flag_values=values)
    flags.DEFINE_integer("processes", 0, "", flag_values=values)
    flags.DEFINE_integer("process", -1, "", flag_values=values)
    flags.DEFINE_boolean("show", False, "", flag_values=values)
    flags.DEFINE_boolean("plan", False, "", flag_values=values)
    try:
        left = values(rest)
    except flags.UnrecognizedFlagError as error:
        hint = did_you_mean(error.flagname, _OPTIONS)
        raise ValueError(f"no option --{error.flagname}. {hint}") from None
    except (flags.Error, TypeError, SyntaxError, ValueError) as error:
        raise ValueError(_explained(str(error), rest, experiment)) from None
    experiment = values.config  # flags change a copy
    if left[1:]:
        raise ValueError(f"{' '.join(left[1:])!r} is no option: options begin with --; see --help.")
    if values.show:
        print("\n".join(shown_fields(experiment)))
        return 0

    from jaxkd.runs import runner  # and all that writes reports

    if values.multihost or values.coordinator or values.processes or values.process >= 0:
        hosts.start(values.coordinator, values.processes, values.process)
    default = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "jaxkd"
    cache = pathlib.Path(os.environ.get("JAXKD_CACHE", default))
    # Arms of an experiment, its seeds and a resumed run are the same programs: compile them once.
    jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    where = dict(name=file.stem, variant=variant, workdir=pathlib.Path(values.workdir), cache=cache)
    if values.plan:
        runner.plan(experiment, **where)
        return 0
    stop_asked: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stop_asked.append(True))
    signal.signal(signal.SIGINT, lambda *_: _interrupt(stop_asked))
    runner.run(
        experiment,
        command=shlex.join(["python", pathlib.Path(argv[0]).name, *argv[1:]]),
        **where,
        tensorboard=values.tensorboard,
        profile=values.profile,
        stopping=lambda: bool(stop_asked),
    )
    return 0


def _interrupt(stop_asked: list[bool]) -> None:
    """The first Ctrl-C asks for a checkpoint after the step; the second stops at once."""
    if stop_asked:
        raise KeyboardInterrupt
    stop_asked.append(True)
    print("\nstopping after this step (Ctrl-C again: at once)")


def _which(argv: Sequence[str]) -> tuple[pathlib.Path, str, list[str]]:
    """The experiment's file, its variant ("" for the default), and all other words."""
    rest = list(argv)
    for i, word in enumerate(rest):
        if word == "--config" and i + 1 < len(rest):
            named = rest[i + 1]
            del rest[i : i + 2]
            break
        if word.startswith("--config="):
            named = word.removeprefix("--config=")
            del rest[i]
            break
    else:
        raise ValueError("no experiment: give --config experiments/NAME.py. See --help.")
    path, _, variant = named.partition(":")
    file = pathlib.Path(path)
    if not file.is_file():
        known = [str(p) for p in sorted(EXPERIMENTS.glob("*.py"))]
        raise ValueError(f"no experiment {path!r}. {did_you_mean(path, known)}")
    return file, variant, rest


def _load(file: pathlib.Path, variant: str) -> tuple[Experiment, str]:
    """The experiment that the file's `get_config` gives, and the variant's name."""
    spec = importlib.util.spec_from_file_location(f"experiment_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"{file} has no function get_config(variant), which makes its experiment.")
    if not variant:
        parameter = inspect.signature(module.get_config).parameters.get("variant")
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise ValueError(
                f"{file}: get_config has no default variant; write get_config(variant='mini'), or "
                f"name one: --config {file}:VARIANT."
            )
        variant = parameter.default
    experiment = module.get_config(variant)
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{file}: get_config returned {experiment!r}, which is no Experiment.")
    resolve_annotations(experiment)
    return experiment, variant


def _check_options(words: Sequence[str], experiment: Experiment) -> None:
    """Raise ValueError for a --config.FIELD that the experiment does not have."""
    for word in words:
        option = re.match(r"--(?:no)?config\.([^=]+)", word)
        value: Any = experiment
        path = "config"
        for part in option[1].split(".") if option else ():
            names = field_names(value)
            if part not in names:
                raise ValueError(f"{path} has no {part!r}. {did_you_mean(part, names)}")
            value = member(value, part)
            path += f".{part}"


def _explained(message: str, words: Sequence[str], experiment: Experiment) -> str:
    """A message about a value that could not be parsed, with what its field may be."""
    for word in words:
        option = re.match(r"--config\.([^=]+)=(.*)", word, re.DOTALL)
        if option is None or f"config.{option[1]}" not in message:
            continue
        *path, name = option[1].split(".")
        value: Any = experiment
        for part in path:
            value = member(value, part)
        if not isinstance(value, dict):
            words_of = field_words(type(value), name)
            return f"config.{option[1]} is {option[2]!r}; it must be {words_of}."
    return message
