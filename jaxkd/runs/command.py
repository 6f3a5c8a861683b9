"""The command line: help, and errors that say what to do. launch.py starts the run.

Nothing here imports JAX, so that help comes at once.
"""

import ast
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence

from jaxkd.core.names import did_you_mean

EXPERIMENTS = pathlib.Path("experiments")

_USAGE = """\
python run.py --config FILE[:VARIANT] [--config.FIELD=VALUE ...] [options]

  --config FILE[:VARIANT]   an experiment, and its size
  --config.FIELD=VALUE      change any field: --config.data.dir=DIR, --config.seeds='(0,1,2)',
                            --config.stages.STAGE.FIELD=VALUE
  --workdir DIR             where runs are kept (default: runs)
  --tensorboard             also write TensorBoard files
  --profile                 also trace some steps of each training: profile/SEED/STAGE in the
                            run's folder, for TensorBoard (plugin xprof) or ui.perfetto.dev
  --multihost               this process is one of several (docs/tpu_vm.md); where JAX cannot find
                            the others: --coordinator=HOST:PORT --processes=N --process=I
  --show                    print the experiment's fields, what they mean, and stop
  --plan                    print what each training needs here (memory, disk, minutes), and stop
  --help [NAME]             this page; with the name of an experiment, or after --config FILE,
                            what that experiment does and gives

A run that was stopped goes on when it is started again; what is done and unchanged is skipped.
"""

_HELP = {"-h", "--help", "--helpfull", "--helpshort"}


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status. Errors say how to get their traceback."""
    try:
        status = _main(argv)
    except BaseException:
        if not _several_processes():
            raise
        traceback.print_exc()
        status = 1
    if status and _several_processes():
        # At its end a process waits for the others, and they may wait for it: leave at once.
        sys.stdout.flush()
        os._exit(status)
    return status


def _several_processes() -> bool:
    """Whether the run has begun, as one of several processes."""
    if "jax" not in sys.modules:
        return False
    from jaxkd.runtime import hosts

    return hosts.several()


def _main(argv: Sequence[str]) -> int:
    try:
        if _HELP & set(argv[1:]) or len(argv) == 1:
            print(_help(argv[1:]))
            return 0
        from jaxkd.runs.launch import launch  # a second or more, which help need not wait for

        return launch(argv)
    except BrokenPipeError:  # `run.py --show | head`: who read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped'}")
        return 130
    except (ValueError, OSError, RuntimeError, FloatingPointError, ModuleNotFoundError) as error:
        if os.environ.get("JAXKD_TRACEBACK"):
            raise
        print(f"\n{type(error).__name__}: {error}\n(JAXKD_TRACEBACK=1 shows where)")
        return 1
    except Exception as error:
        if os.environ.get("JAXKD_TRACEBACK"):
            raise
        print(f"\n{_unforeseen(error)}\n(JAXKD_TRACEBACK=1 shows all of it)")
        return 1


def _unforeseen(error: Exception) -> str:
    """What is said of an error that nobody wrote a message for: its kind, text and place."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename] or frames
    where = f" ({own[-1].filename}, line {own[-1].lineno}: {own[-1].line})" if own else ""
    return f"{type(error).__name__}: {text}{where}"


def _help(words: Sequence[str]) -> str:
    """The page, or what one experiment's file says of itself."""
    names = [word for word in words if word not in _HELP and not word.startswith("--config.")]
    names = [word.removeprefix("--config=") for word in names if word != "--config"]
    names = [word for word in names if not word.startswith("-")]
    if not names:
        return _USAGE + "\nexperiments (--help NAME says more):\n" + _list_experiments()
    named = names[0].partition(":")[0]
    files = {str(file): file for file in sorted(EXPERIMENTS.glob("*.py"))}
    files |= {file.stem: file for file in files.values()}
    file = files.get(named, pathlib.Path(named))
    if not file.is_file():
        known = [file.stem for file in EXPERIMENTS.glob("*.py")]
        raise ValueError(f"no experiment {named!r}. {did_you_mean(named, known)}")
    docstring = ast.get_docstring(ast.parse(file.read_text())) or "(its file says nothing)"
    return f"{file}\n\n{docstring}"


def _list_experiments() -> str:
    lines = []
    for file in sorted(EXPERIMENTS.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
        if docstring:
            lines.append(f"  {file.stem:<16} {docstring.splitlines()[0]}")
    return "\n".join(lines) + "\n"
