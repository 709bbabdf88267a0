"""A model that writes down what it has processed, for tests that count how often a request ran, and where."""

from pathlib import Path

JOURNAL = '''
import os
import time
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers each number with its double after a while, and appends it to a file of its server's own."""

    def initialize(self, args):
        import json
        parameters = json.loads(args["model_config"])["parameters"]
        folder = parameters["folder"]["string_value"]
        self.pause_s = float(parameters["pause_s"]["string_value"])
        path = os.path.join(folder, f"{os.getppid()}-{os.getpid()}")
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def execute(self, requests):
        answers = []
        for request in requests:
            number = pb.get_input_tensor_by_name(request, "number").as_numpy()
            os.write(self.file, f"{int(number[0])}\\n".encode())
            time.sleep(self.pause_s)
            answers.append(pb.InferenceResponse([pb.Tensor("double", number * 2)]))
        return answers
'''

CONFIG = """
name: "journal"
backend: "python"
input {{ name: "number" data_type: TYPE_INT64 dims: [ 1 ] }}
output {{ name: "double" data_type: TYPE_INT64 dims: [ 1 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
parameters {{ key: "folder" value {{ string_value: "{folder}" }} }}
parameters {{ key: "pause_s" value {{ string_value: "{pause_s}" }} }}
"""


def write_journal(repository: Path, folder: Path, *, pause_s: float = 0.001) -> None:
    """Write the model below `repository`; it writes below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (repository / "journal" / "1").mkdir(parents=True)
    (repository / "journal" / "1" / "model.py").write_text(JOURNAL)
    (repository / "journal" / "config.pbtxt").write_text(CONFIG.format(folder=folder, pause_s=pause_s))


def processed(folder: Path) -> list[list[int]]:
    """Return what each server that ever ran has processed."""
    return [[int(line) for line in path.read_text().split()] for path in sorted(folder.iterdir())]
