#!/usr/bin/env bash
# The GPU benchmark on a machine that has Python and PyTorch, and perhaps no network: see --help.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}

if ! command -v -- "$python" >/dev/null; then
  echo "gpu.sh: expected $python in PATH, found none; PYTHON=/path/to/python3 names one" >&2
  exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "gpu.sh: expected Python 3.11 or newer, found $("$python" --version 2>&1); PYTHON=/path/to/python3 names one" >&2
  exit 2
fi
exec "$python" "$here/gpu" "$@"
