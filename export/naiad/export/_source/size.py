"""How large a model is, before anything is done with it."""

import os
from pathlib import Path
from typing import Any


def num_bytes(model: Any) -> int:
    """Return the size of a model's weights, of a module, an ExportedProgram or a file with what lies beside it."""
    from torch.nn.parameter import is_lazy

    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*") if file.is_file())
    return sum(0 if is_lazy(tensor) else tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
