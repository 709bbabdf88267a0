"""Lets the tests import the backend's modules as Triton's stub does: by name, from the backend's own folder."""

import sys
from importlib.resources import files

import stub_double

sys.path.append(str(files("naiad.server") / "backends" / "onnxruntime"))
stub_double.install()
