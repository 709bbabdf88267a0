"""Configurations of later releases, as the embedded Triton can load them."""

from tritonclient.grpc import model_config_pb2

from naiad.server._newer import translated


def test_a_package_is_known_by_its_file() -> None:
    """Without the platform that 24.10 refuses, the file's name says what it is; everything else stays."""
    config = model_config_pb2.ModelConfig(name="m", backend="pytorch", platform="torch_aoti")
    config.version_policy.specific.versions.append(3)
    config.input.add(name="INPUT__0", data_type="TYPE_FP32", dims=[-1, 4])
    fields = translated(config)
    assert fields is not None
    assert "platform" not in fields
    assert (fields["backend"], fields["default_model_filename"]) == ("pytorch", "model.pt2")
    assert fields["version_policy"] == {"specific": {"versions": ["3"]}}
    assert fields["input"] == [{"name": "INPUT__0", "data_type": "TYPE_FP32", "dims": ["-1", "4"]}]
    assert config.platform == "torch_aoti"


def test_what_the_embedded_triton_knows_is_left_alone() -> None:
    """Other models are loaded with the configuration on disk."""
    assert translated(model_config_pb2.ModelConfig(name="m", backend="onnxruntime")) is None
    assert translated(model_config_pb2.ModelConfig(name="m", platform="pytorch_libtorch")) is None
