"""Models that insist on a GPU."""

from collections.abc import Mapping

from tritonclient.grpc import model_config_pb2

from naiad.server.errors import PreflightFailed


def check(configs: Mapping[str, model_config_pb2.ModelConfig], why_none: str) -> None:
    """Raise `PreflightFailed` when one of these models has KIND_GPU, where no GPU is used."""
    models = [model for model, config in sorted(configs.items()) if _insists(config)]
    if models:
        raise PreflightFailed(
            f"Expected a GPU for {', '.join(models)} (KIND_GPU in config.pbtxt), found none: {why_none}. Write "
            "`kind: KIND_AUTO` there, which takes a GPU where there is one; or let Triton use GPUs (`--gpus all` says "
            "what is missing); or name the models to serve.",
            check="KIND_GPU",
        )


def _insists(config: model_config_pb2.ModelConfig) -> bool:
    gpu = model_config_pb2.ModelInstanceGroup.KIND_GPU
    return any(group.kind == gpu for group in config.instance_group)
