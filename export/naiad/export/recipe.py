"""Recipes: one small Python file for each model, which says how to build it and what to feed it.

The smallest one:

    import torch

    def build():
        return torch.nn.Linear(4, 2)

    def samples():
        return [(torch.randn(8, 4),)]

A recipe with `pipeline()` instead of `build()` gives an ensemble, from strings or files to answers:

    from naiad.export.steps import Function, Model, tokenize

    def pipeline():
        return [
            tokenize("tokens", "tokenizer.json", max_length=128),   # text → ids, mask
            Model("encoder", encoder(), outputs=["vector"]),        # forward(ids, mask)
            Function("normalise", normalise),                       # def normalise(vector): return {"embedding": …}
        ]

    def samples():
        return [{"text": np.array([["some words"], ["more words"]])}]

Tensors have one name in the whole pipeline, see `naiad.export.steps`; `DYNAMIC` is then about its inputs, and
`OUTPUTS` are those of the last step by default.

What a recipe may define:

=================== ======================== ==========================================================================
`build(**options)`  required                 returns the trained `torch.nn.Module`, an ExportedProgram, or the path of
                                             a `.onnx` or `.pt2` file; its keywords are its options
`pipeline(**opts)`  instead of `build`       returns a list of steps, see `naiad.export.steps`
`samples()`         required                 real inputs: a list of tuples or of dicts by the names of `forward`
`INPUTS`            instead of `samples`     `{"x": Input(shape=["batch", 4])}`: samples are then made up; `{}` for a
                                             model file, which says itself what it takes
`held_out()`                                 `(inputs, labels)`: arrays by input name, and the right answers
`evaluate(predict)`                          metrics by name; `predict` takes and gives arrays by tensor name
`NAME`              the file's name          the model's name in the repository
`DYNAMIC`           the batch                `{"x": {0: "batch", 1: "length"}}`, the dimensions that vary
`MAX_BATCH_SIZE`    64                       0 for a model without a batch dimension
`OUTPUTS`           as returned              the outputs' names, in order
`LABELS`                                     class names of the only output, or a dict by output name
`TOLERANCE`         by precision             `{"rtol": …, "atol": …, "cosine": …}`, also by output and by precision:
                                             `{"outputs": {"probs": {"atol": …}}, "int8": {"cosine": …}}`
`SETTINGS`                                   fields of config.pbtxt by dotted name
`STATES`                                     `{"h": "h_out"}`: outputs by the inputs they become in a sequence
=================== ======================== ==========================================================================
"""

import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from naiad.export._verify.tolerances import Tolerances
from naiad.export.errors import InvalidExport, InvalidRecipe, RecipeFailed, RecipeNotFound
from naiad.export.report import Tolerance

Arrays = Mapping[str, np.ndarray[Any, Any]]
Predict = Callable[[Arrays], Arrays]

_FUNCTIONS = {"build": True, "samples": True, "held_out": False, "evaluate": False}
MODEL_FILES = (".onnx", ".pt2", ".pt", ".pth", ".ts")
_PIPELINE = {"pipeline": True, "samples": True}
_CONSTANTS: dict[str, tuple[type, ...]] = {
    "NAME": (str,),
    "DYNAMIC": (dict,),
    "INPUTS": (dict,),
    "MAX_BATCH_SIZE": (int,),
    "OUTPUTS": (list, tuple),
    "LABELS": (list, tuple, dict),
    "TOLERANCE": (dict,),
    "SETTINGS": (dict,),
    "STATES": (dict,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A recipe file that was loaded and follows the protocol."""

    path: Path
    module: ModuleType

    @property
    def name(self) -> str:
        """The model's name in the repository."""
        return str(self.constant("NAME", self.path.stem))

    @property
    def sha256(self) -> str:
        """The hash of the recipe's file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def constant(self, name: str, default: Any = None) -> Any:
        """Return one of the recipe's upper-case settings, or `default` where it has none."""
        return getattr(self.module, name, default)

    def tolerances(self) -> dict[str, Any]:
        """Return `TOLERANCE`: what differs from the defaults of the precisions.

        Raises:
            InvalidRecipe: It has other keys than a tolerance has, or values that are none.
        """
        values = dict(self.constant("TOLERANCE", {}))
        try:
            Tolerances(given=values)
        except InvalidExport as exc:
            raise InvalidRecipe(f"{self.path}: TOLERANCE is {values}: {exc}", path=self.path) from exc
        return values

    def tolerance(self) -> Tolerance:
        """Return how far ONNX Runtime may be from PyTorch in fp32."""
        return Tolerances(given=self.tolerances()).of("fp32")

    def build(self, **options: object) -> Any:
        """Return the trained model: a `torch.nn.Module`, an ExportedProgram, or the path of a model file.

        Raises:
            InvalidRecipe: The recipe has no such option, or what it returns is not a module.
            RecipeFailed: The recipe's code raised.
        """
        self._check_options(options)
        model = self._call("build", **options)
        import torch  # only a recipe that is built needs it

        if not isinstance(model, torch.nn.Module | torch.export.ExportedProgram | str | os.PathLike):
            raise self._invalid(
                "build",
                f"build() returned {type(model).__name__}; expected a torch.nn.Module, an ExportedProgram, or the path "
                "of a .onnx or .pt2 file",
            )
        return model

    def pipeline(self, **options: object) -> Sequence[Any]:
        """Return the steps of a pipeline: `Function` and `Model` of `naiad.export.steps`.

        Raises:
            InvalidRecipe: The recipe has no such option, or what it returns is no list.
            RecipeFailed: The recipe's code raised.
        """
        self._check_options(options, "pipeline")
        steps = self._call("pipeline", **options)
        if not isinstance(steps, list | tuple):
            raise self._invalid("pipeline", f"pipeline() returned {type(steps).__name__}; expected a list of steps")
        return steps

    def origin(self) -> dict[str, object]:
        """Return the recipe's name and hash for the manifest; a model file needs no recipe and has none."""
        return {"recipe": self.path.name, "recipe_sha256": self.sha256} if self.path.suffix == ".py" else {}

    def samples(self) -> Sequence[Any]:
        """Return the samples: a list of tuples, or of dicts by the names of `forward`'s arguments."""
        samples = self._call("samples")
        if not isinstance(samples, Sequence) or not samples or not all(isinstance(s, tuple | Mapping) for s in samples):
            raise self._invalid("samples", "samples() must return a list of tuples or dicts, one per call of the model")
        return samples

    def held_out(self) -> tuple[Arrays, np.ndarray[Any, Any]]:
        """Return data the model was not trained on: arrays by input name, and the right answers."""
        pair = self._call("held_out")
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Mapping)):
            raise self._invalid("held_out", "held_out() must return (arrays by input name, right answers)")
        return pair[0], pair[1]

    def evaluate(self, predict: Predict) -> dict[str, float]:
        """Return the recipe's metrics of any predictor: PyTorch, ONNX Runtime or a server."""
        metrics = self._call("evaluate", predict)
        if not isinstance(metrics, Mapping):
            raise self._invalid("evaluate", "evaluate() must return metrics by name")
        return {str(name): float(value) for name, value in metrics.items()}

    def has(self, function: str) -> bool:
        """Whether the recipe defines this optional function."""
        return callable(getattr(self.module, function, None))

    def _call(self, function: str, *args: object, **kwargs: object) -> Any:
        if not self.has(function):
            raise InvalidRecipe(f"{self.path} has no {function}(); a recipe needs it here", path=self.path)
        with _blamed(self.path, f"{function}()"):
            return getattr(self.module, function)(*args, **kwargs)

    def _check_options(self, options: Mapping[str, object], function: str = "build") -> None:
        parameters = inspect.signature(getattr(self.module, function)).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        unknown = sorted(options.keys() - parameters.keys())
        if unknown:
            known = ", ".join(parameters) or "none"
            raise self._invalid(function, f"{function}() has no option {unknown[0]!r}; it has: {known}")

    def _invalid(self, function: str, message: str) -> InvalidRecipe:
        line = inspect.unwrap(getattr(self.module, function)).__code__.co_firstlineno
        return InvalidRecipe(f"{self.path}:{line}: {message}", path=self.path, line=line)


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Return the file of a recipe: a path, or the name of one that comes with Naiad.

    Raises:
        RecipeNotFound: There is neither.
    """
    path = Path(name)
    if os.path.isfile(path):  # which is false, too, of what no file can be called
        return path.absolute()
    if re.fullmatch(r"\w+", str(name)):
        for folder in _folders():
            if os.path.isfile(folder / f"{name}.py"):
                return folder / f"{name}.py"
    raise RecipeNotFound(
        f"there is no recipe {str(name)!r}; expected the path of a Python file, or one of: "
        f"{', '.join(shipped()) or 'none'}",
        path=path,
    )


def shipped() -> tuple[str, ...]:
    """Return the names of the recipes that come with Naiad."""
    return tuple(
        sorted({path.stem for folder in _folders() for path in folder.glob("*.py") if not path.stem.startswith("_")})
    )


def load_recipe(name: str | os.PathLike[str]) -> Recipe:
    """Run a recipe file and check that it follows the protocol.

    Raises:
        RecipeNotFound: There is no such file or name.
        InvalidRecipe: It lacks a required function, or a setting has the wrong type.
        RecipeFailed: Its own code raised; the message has the line.
    """
    path = find_recipe(name)
    if path.suffix in MODEL_FILES:
        return _recipe_of(path)
    if path.suffix != ".py":
        raise InvalidRecipe(
            f"{path} is not a recipe; expected a Python file, or a model file ({', '.join(MODEL_FILES)})", path=path
        )
    recipe = Recipe(path=path, module=_execute(path))
    _check_protocol(recipe)
    return recipe


def _recipe_of(path: Path) -> Recipe:
    """Return the recipe that a model file is: it builds the file, and samples are made up if none are given."""
    module = ModuleType(path.stem)
    vars(module).update(build=lambda: path, INPUTS={})
    return Recipe(path=path, module=module)


def _execute(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"naiad_recipe_{re.sub('[^A-Za-z0-9_]', '_', path.stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:  # a recipe may import its neighbours, as a script may
        sys.path.append(str(path.parent))
    try:
        with _blamed(path, "the file"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_protocol(recipe: Recipe) -> None:
    path = recipe.path
    functions = _PIPELINE if recipe.has("pipeline") else _FUNCTIONS
    if recipe.has("pipeline") and recipe.has("build"):
        raise InvalidRecipe(
            f"{path} defines build() and pipeline(); expected one of them: rename the other, or move it to a recipe of "
            "its own",
            path=path,
        )
    given = {"samples"} if recipe.constant("INPUTS") is not None else set()
    missing = [name for name, required in functions.items() if required and not recipe.has(name) and name not in given]
    if missing:
        raise InvalidRecipe(
            f"{path} is not a recipe: it defines no {'() and no '.join(missing)}(); expected build(), which returns "
            "the trained model, and samples(), which returns inputs for it",
            path=path,
        )
    for name, types in _CONSTANTS.items():
        value = recipe.constant(name)
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            expected = " or ".join(kind.__name__ for kind in types)
            raise InvalidRecipe(f"{path}: {name} is {type(value).__name__}; expected {expected}", path=path)


class _blamed:  # noqa: N801 - used like a function
    """Turn what a recipe's code raises into one line that names the recipe's line."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: Any) -> None:
        if exc is None or not isinstance(exc, Exception | SystemExit):
            return
        line = _line(exc, trace, self._path)
        where = f"{self._path}:{line}" if line else str(self._path)
        detail = str(exc).strip().splitlines()
        reason = f"{type(exc).__name__}: {detail[0]}" if detail else type(exc).__name__
        if isinstance(exc, ModuleNotFoundError):
            reason += "; install what it imports (naiad[export,examples] for the recipes that come with Naiad)"
        raise RecipeFailed(f"{where}: {self._what} failed with {reason}", path=self._path, line=line) from exc


def _line(exc: BaseException, trace: Any, path: Path) -> int | None:
    if isinstance(exc, SyntaxError) and exc.filename == str(path):
        return exc.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == str(path)]
    return lines[-1] if lines else None


def _folders() -> tuple[Path, ...]:
    here = Path(__file__).resolve().parent
    installed, checkout = here / "recipes", here.parents[1] / "recipes"
    return tuple(folder for folder in (installed if installed.is_dir() else checkout,) if folder.is_dir())
