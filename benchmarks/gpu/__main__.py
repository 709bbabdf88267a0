"""Run by path: `python3 benchmarks/gpu`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from gpu.cli import main

    sys.exit(main(sys.argv[1:]))
