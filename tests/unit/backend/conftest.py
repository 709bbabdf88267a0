"""Lets the tests import the backend's modules as Triton's stub does: by name, from the backend's own folder."""

import sys
from importlib.resources import files

sys.path.append(str(files("naiad.server") / "backends" / "onnxruntime"))
