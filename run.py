"""Run an experiment: python run.py --config experiments/NAME.py[:VARIANT] [options]."""

import sys

from jaxkd.stages.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
