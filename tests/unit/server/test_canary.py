"""The canary's request fits every configuration."""

import pytest

from naiad.server._canary import request


@pytest.mark.parametrize(
    ("data_type", "datatype", "size_bytes"),
    [("TYPE_FP32", "FP32", 24), ("TYPE_BF16", "BF16", 12), ("TYPE_STRING", "BYTES", 24), ("TYPE_BOOL", "BOOL", 6)],
)
def test_zeros_of_every_type_at_batch_size_one(data_type: str, datatype: str, size_bytes: int) -> None:
    """Open dimensions get size 1, a batch dimension is added where there is one, optional inputs are left out."""
    tensor = {"name": "x", "data_type": data_type, "dims": [-1, "6"]}
    config = {"max_batch_size": 4, "input": [tensor, {"name": "o", "optional": True}]}
    header, payloads = request(config)
    (sent,) = header["inputs"]
    assert (sent["shape"], sent["datatype"]) == ([1, 1, 6], datatype)
    assert payloads == [bytes(size_bytes)]
