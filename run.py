"""Run an experiment: python run.py --config experiments/NAME.py[:VARIANT] [options]."""

import sys

from jaxkd.runtime.allocator import restart_keeping

if __name__ == "__main__":
    restart_keeping()
    from jaxkd.runs.command import main

    sys.exit(main(sys.argv))
