"""What compiling for a GPU needs beside PyTorch: a driver, a C++ compiler, Triton's compiler and headers of CUDA."""

import ctypes
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

CXX = "g++"
_HEADERS = ("cuda.h", "cuda_runtime_api.h", "crt/host_defines.h")
_DRIVER = "libcuda.so.1"


def lacks_gpu() -> str:
    """Return what keeps PyTorch from using a GPU here, and what to do; empty where it can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA; install a PyTorch for CUDA"
    try:
        ctypes.CDLL(_DRIVER)
    except OSError as exc:
        return f"NVIDIA's driver cannot be loaded ({exc}); install it, or give the container the GPU (--gpus all)"
    if torch.cuda.is_available():
        return ""
    return (
        f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU; look at nvidia-smi, CUDA_VISIBLE_DEVICES, "
        "and whether the driver is new enough for that CUDA"
    )


def lacks_tools() -> str:
    """Return what is missing to compile for a GPU, and what to do; empty where nothing is."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton, which makes a GPU's machine code, is not installed: pip install triton"
    compiler = os.environ.get("CXX", CXX)
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler}) in PATH: install g++, or name another in CXX"
    if shutil.which(os.environ.get("CC", "")) is None and not any(map(shutil.which, ("gcc", "clang"))):
        return "there is no C compiler (gcc or clang) in PATH, which triton needs: install gcc"
    if not (_python_headers() / "Python.h").is_file():
        return f"there is no Python.h in {_python_headers()}, which triton needs: install python3-dev"
    if cuda_home() is None:
        return (
            f"the headers of CUDA ({', '.join(_HEADERS)}) are neither in CUDA_HOME, nor beside nvcc, nor in "
            "/usr/local/cuda, nor in packages of Python: install the CUDA toolkit, or pip install nvidia-cuda-runtime "
            "nvidia-cuda-crt"
        )
    return ""


def cuda_home() -> Path | None:
    """Return the root of a CUDA toolkit with headers; nvcc need not be there."""
    return next((root for root in _roots() if all((root / "include" / name).is_file() for name in _HEADERS)), None)


def environment(folder: Path) -> dict[str, str]:
    """Return the variables with which PyTorch's compiler finds CUDA; `folder` is private and gets a link."""
    home = cuda_home()
    variables = {} if home is None else {"CUDA_HOME": str(home)}
    driver = _driver()
    if driver is not None:
        # The linker looks for the name without a number, which machines that only run CUDA do not have.
        (folder / "libcuda.so").symlink_to(driver)
        places = [str(folder), *filter(None, [os.environ.get("LIBRARY_PATH")])]
        variables["LIBRARY_PATH"] = os.pathsep.join(places)
    return variables


def _python_headers() -> Path:
    """Return the folder in which triton looks for them; Debian's own scheme names one that is empty."""
    scheme = sysconfig.get_default_scheme()
    return Path(sysconfig.get_path("include", "posix_prefix" if scheme == "posix_local" else scheme))


def _roots() -> Iterator[Path]:
    """Yield where a toolkit may be, in the order in which PyTorch looks, and then in NVIDIA's packages for Python."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        yield Path(nvcc).parent.parent
    yield Path("/usr/local/cuda")
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from sorted(Path(place).glob("cu[0-9]*"), reverse=True)


def _driver() -> Path | None:
    """Return the file of the driver's library."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        paths = (line.split(maxsplit=5)[-1].strip() for line in maps if "/libcuda.so" in line)
        return next((Path(path) for path in paths), None)
