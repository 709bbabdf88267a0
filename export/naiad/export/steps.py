"""The steps of a pipeline: models, and Python functions around them, which Triton runs as one ensemble.

    from naiad.export.steps import Function, Model, decode_image

    def pipeline():
        return [
            decode_image("decode", size=(8, 8), mode="L"),
            Model("net", net, inputs={"image": "pixels"}, outputs=["probabilities"]),
            Function("label", label, outputs=["label"]),
        ]

Tensors have one name in the whole pipeline. A step takes those that its arguments are named after; `inputs` says
where an argument has another name. What the samples give are the pipeline's inputs, what no step makes cannot be used.

A function gets numpy arrays and returns a dict of arrays by tensor name, or arrays that `outputs` names. It is called
once for each request, whose rows are the first dimension, never with rows of different callers. Text and files are
object arrays of `bytes`; it may return `str`. Its code travels to the server as source: the function itself and what
it uses of its file, with the packages that this imports named in `requirements.txt`.

A `Script` is a function that calls other steps itself, as it decides from what they answer:

    Script("control", control, calls=("detector", "classifier"), optional=("enhancer",))
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from naiad.export.errors import InvalidRecipe

Outputs = Sequence[str] | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function that becomes a model of Triton's Python backend.

    Its positional arguments are tensors; those behind a `*` are filled from `options` and `files`.
    """

    name: str
    """Of the step: its model is called `<pipeline>_<name>`."""
    function: Callable[..., Any]
    """Defined at the top level of a file, so that its source can be taken along."""
    inputs: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """The tensor for each argument that is named differently."""
    outputs: Outputs = field(default=(), kw_only=True)
    """The names of returned arrays, in order; or for a returned dict, the tensor for each key named differently."""
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Values for arguments behind the `*`, as JSON can hold them."""
    files: Mapping[str, str | os.PathLike[str]] = field(default_factory=dict, kw_only=True)
    """Files for arguments behind the `*`: they travel along, and the function gets the path as `str`."""
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict, kw_only=True)
    """Dimensions of outputs that vary, `{"ids": {1: "length"}}`; those that differ between samples are known."""
    requires: Sequence[str] = field(default=(), kw_only=True)
    """Packages it needs beside those that its code imports, as for pip."""
    settings: Mapping[str, object] = field(default_factory=dict, kw_only=True)
    """Fields of this step's config.pbtxt by dotted name."""

    def __post_init__(self) -> None:
        _check_step(self)
        if not callable(self.function):
            raise InvalidRecipe(
                f"step {self.name!r} has {type(self.function).__name__} as function; expected a function"
            )

    def with_settings(self, settings: Mapping[str, object]) -> "Function":
        """Return the step with more fields of its config.pbtxt set."""
        return replace(self, settings={**self.settings, **settings})


@dataclass(frozen=True, slots=True)
class Script(Function):
    """A Python function that calls other steps of the pipeline, as often and in the order that it decides.

    `def control(image, *, models): boxes = models.detector(image=image)["box"]; …`

    A called step takes arrays by its own arguments' names and returns a dict by its own results' names. It is called
    by scripts only and is no part of the chain. A failed call raises RuntimeError.
    """

    calls: Sequence[str] = field(default=(), kw_only=True)
    """The names of the steps that it calls, each a `Model` or a `Function`."""
    optional: Sequence[str] = field(default=(), kw_only=True)
    """Steps that it does without: `models.get("enhancer")` is None while the server does not serve the model."""

    def __post_init__(self) -> None:
        Function.__post_init__(self)
        for what in ("calls", "optional"):
            if isinstance(getattr(self, what), str):
                raise InvalidRecipe(f"step {self.name!r} has {what}={getattr(self, what)!r}; expected a list of names")
        names = [*self.calls, *self.optional]
        twice = [name for name in names if names.count(name) > 1]
        if twice or not names:
            found = f"{twice[0]!r} twice" if twice else "none"
            raise InvalidRecipe(
                f"step {self.name!r} calls {found}; expected the names of other steps, each once, in calls or optional"
            )
        if "models" in {*self.options, *self.files}:
            raise InvalidRecipe(
                f"step {self.name!r} has an option 'models', the argument with what it calls; rename it"
            )


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is exported as by `naiad.export.export`, with all its checks."""

    name: str
    """Of the step: its model is called `<pipeline>_<name>`."""
    model: Any
    """A `torch.nn.Module`, or the path of an `.onnx` file."""
    inputs: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """The tensor for each input that is named differently."""
    outputs: Outputs = field(default=(), kw_only=True)
    """The outputs' names, in order; or for some of those it has, the tensor's name where it differs."""
    dynamic: Mapping[str, Mapping[int, str]] | None = field(default=None, kw_only=True)
    """The dimensions that vary, by input; by default the batch and what the steps before leave open."""
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """More arguments of `naiad.export.export`: precision, settings, tolerance, …"""

    def __post_init__(self) -> None:
        _check_step(self)
        derived = {"samples", "repository", "dynamic", "outputs", "max_batch_size", "promote", "on_step", "source"}
        taken = sorted(derived & set(self.options))
        if taken:
            raise InvalidRecipe(f"step {self.name!r} has the option {taken[0]!r}, which the pipeline gives its models")

    def with_settings(self, settings: Mapping[str, object]) -> "Model":
        """Return the step with more fields of its config.pbtxt set."""
        own = {**self.options.get("settings", {}), **settings}
        return replace(self, options={**self.options, "settings": own})


Step = Function | Model
"""A `Script` is a `Function`, too."""


def tokenize(
    name: str,
    tokenizer: str | os.PathLike[str],
    *,
    text: str = "text",
    ids: str = "ids",
    mask: str = "mask",
    max_length: int,
    padding: Literal["longest", "max_length"] = "longest",
    multiple_of: int = 1,
) -> Function:
    """Return a step from text to the ids of its tokens, with a file of the package `tokenizers`.

    Args:
        name: Of the step.
        tokenizer: The path of a `tokenizer.json`.
        text: The tensor with the text: BYTES [batch] or [batch, 1], UTF-8.
        ids: The name of the tokens' ids, INT64 [batch, length].
        mask: The name of their mask, INT64 [batch, length]: 1 for a token, 0 for padding.
        max_length: Longer texts are cut.
        padding: "longest" pads to the longest text of a request; "max_length" pads always, which costs more computation
            and lets the server join any requests in one batch.
        multiple_of: With "longest", lengths are rounded up to a multiple of this, so that more requests are joined.
    """
    from naiad.export._pipeline.served import tokenizing

    if not Path(tokenizer).is_file():
        raise InvalidRecipe(f"step {name!r} has no tokenizer at {tokenizer}; expected the path of a tokenizer.json")
    if padding not in ("longest", "max_length") or max_length < 1 or multiple_of < 1 or max_length % multiple_of:
        raise InvalidRecipe(
            f"step {name!r} has padding={padding!r}, max_length={max_length}, multiple_of={multiple_of}; expected "
            "'longest' or 'max_length', and a positive max_length that is a multiple of multiple_of"
        )
    options = {"max_length": max_length, "padding": padding, "multiple_of": multiple_of}
    varies = {1: "length"} if padding == "longest" else {}
    return Function(
        name,
        tokenizing.tokenize,
        inputs={"text": text},
        outputs={"ids": ids, "mask": mask},
        options=options,
        files={"tokenizer": tokenizer},
        dynamic={ids: varies, mask: varies} if varies else {},
    )


def decode_image(
    name: str,
    *,
    size: tuple[int, int],
    image: str = "image",
    pixels: str = "pixels",
    mode: Literal["RGB", "L"] = "RGB",
    fit: Literal["stretch", "crop"] = "stretch",
    scale: float = 1 / 255,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Function:
    """Return a step from files of images to normalised pixels, with the package `pillow`.

    Args:
        name: Of the step.
        size: Height and width that each image is resized to (bilinear).
        image: The tensor with the files: BYTES [batch] or [batch, 1]; JPEG, PNG or what else pillow reads.
        pixels: The name of the result: FP32 [batch, channels, height, width], `(value * scale - mean) / std`.
        mode: "RGB" gives three channels, "L" one of grey.
        fit: "stretch" changes the aspect ratio; "crop" keeps it, and the middle of the image.
        scale: Pillow's values are 0 to 255.
        mean: For each channel; none subtracts nothing.
        std: For each channel; none divides by nothing.
    """
    from naiad.export._pipeline.served import imaging

    channels = {"RGB": 3, "L": 1}.get(mode, 0)
    wrong = [what for what, values in (("mean", mean), ("std", std)) if len(values) not in (0, channels)]
    if not channels or fit not in ("stretch", "crop") or min(size) < 1 or len(size) != 2 or wrong:
        raise InvalidRecipe(
            f"step {name!r} has size={size}, mode={mode!r}, fit={fit!r}, mean={mean}, std={std}; expected (height, "
            "width), 'RGB' or 'L', 'stretch' or 'crop', and one mean and std for each channel"
        )
    options = {"size": list(size), "mode": mode, "fit": fit, "scale": scale, "mean": list(mean), "std": list(std)}
    return Function(name, imaging.decode, inputs={"image": image}, outputs={"pixels": pixels}, options=options)


def _check_step(step: Function | Model) -> None:
    if not isinstance(step.name, str) or not step.name.isidentifier() or not step.name.isascii():
        raise InvalidRecipe(f"{step.name!r} is not a step's name; expected letters, digits and '_'")
    if isinstance(step.outputs, str):
        raise InvalidRecipe(f"step {step.name!r} has outputs={step.outputs!r}; expected a list of names")
