#!/usr/bin/env python3
"""Runs the bundle of this folder: python3 run_device.py --help"""

import os
import sys

sys.dont_write_bytecode = True  # the folder stays what it is
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from jaxkd.device.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(folder=os.path.dirname(os.path.abspath(__file__))))
