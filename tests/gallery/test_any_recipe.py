"""The recipes that belong to no system, and users' own, go the same way."""

import pytest

from naiad.cli.demo.system import other_recipes

RECIPE = """
import torch


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=-1))


def samples():
    return [(torch.randn(8, 4),)]
"""


@pytest.mark.parametrize("name", other_recipes())
def test_every_other_recipe_goes_the_whole_way(demo_of, name):
    """Exported, served, its golden requests answered as PyTorch did, and load-tested."""
    found = demo_of(name).found
    assert found["golden_ok"]
    assert found["throughput_per_s"] > 0


def test_a_users_own_recipe_goes_the_whole_way(demo_of, tmp_path):
    """A file is enough."""
    path = tmp_path / "my recipe" / "tiny.py"
    path.parent.mkdir()
    path.write_text(RECIPE)
    run = demo_of(str(path))
    assert run.found["golden_ok"]
    assert (run.repository / "tiny" / "1" / "model.onnx").is_file()
