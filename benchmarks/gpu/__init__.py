"""The GPU benchmark: `benchmarks/gpu.sh --help`. What runs before setup needs the standard library only."""
