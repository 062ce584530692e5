"""Reading weights from files of other projects without running anything that they hold."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import CheckpointError

# Entries below which training programs put the weights, beside optimiser and epoch.
_ENTRIES = ("state_dict", "model_state_dict", "model")
# What wrappers (DistributedDataParallel, torch.compile, Lightning modules) put before every name.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "clip_model.", "clip.")
# Files of an open_clip folder, and of a transformers folder in case someone points there.
_FOLDER_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_QUICK_GELU = 1.702  # the factor in x * sigmoid(1.702 * x)


@dataclass(frozen=True)
class Weights:
    """Weights of a file, under the names of the model inside all wrappers.

    Args:
        path (`Path`):
            The file.
        tensors (`dict[str, torch.Tensor]`):
            On the CPU, in the types of the file.
        kind (`str`):
            `"safetensors"`, `"pickle"` or `"torchscript"`.
        activation (`str`, *optional*):
            `"quick_gelu"` or `"gelu"` where the file itself says so; only TorchScript archives do.
        ignored (`tuple[str, ...]`):
            Classes whose objects the file holds and that were not built.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    kind: str
    activation: str | None = None
    ignored: tuple[str, ...] = ()


def read_weights(path: str | Path, *, ignore_objects: bool = False) -> Weights:
    """Read the weights of a `.safetensors` file, a PyTorch checkpoint or a TorchScript archive.

    Nothing in the file is run: PyTorch checkpoints are read with `weights_only=True`, and of TorchScript archives
    (OpenAI's files) only the tensors are read and the program is looked at as text.

    Args:
        path (`str` or `Path`):
            The file, or a folder with the files of an open_clip repository.
        ignore_objects (`bool`, defaults to `False`):
            Whether to read a checkpoint that holds Python objects beside its tensors (arguments, schedulers). They are
            not built: inert placeholders stand for them.

    Returns:
        [`Weights`]

    Raises:
        CheckpointError: if there is no such file, it is damaged, it holds objects that only running code could build,
            or there are no weights in it.

    Example:
        >>> import tempfile, torch
        >>> from vlcomp.hub.weights_files import read_weights
        >>> file = tempfile.mkdtemp() + "/epoch_1.pt"
        >>> torch.save({"epoch": 1, "state_dict": {"module.logit_scale": torch.tensor(2.5)}}, file)
        >>> read_weights(file).tensors
        {'logit_scale': tensor(2.5000)}
    """
    path = _file_of(Path(path))
    activation, ignored = None, ()
    if path.suffix == ".safetensors":
        kind = "safetensors"
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: no safetensors file, or a damaged one: {error}") from error
    elif zipfile.is_zipfile(path) and _is_torchscript(path):
        kind, content, activation = "torchscript", *_read_torchscript(path)
    else:
        kind, (content, ignored) = "pickle", _read_pickle(path, ignore_objects)
    tensors = _unwrapped(_weights_entry(content, path))
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(f"{path}: {bad[0]} is NaN or infinite; training diverged, use an earlier checkpoint")
    return Weights(path, tensors, kind, activation, ignored)


def _file_of(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file")
    found = next((path / name for name in _FOLDER_FILES if (path / name).is_file()), None)
    if found is None:
        hint = ""
        if (path / "config.json").is_file():
            hint = "; a transformers folder is converted with `--to open_clip`"
        raise CheckpointError(
            f"{path}: no {' or '.join(_FOLDER_FILES[:1] + _FOLDER_FILES[2:])} in this folder; name the file{hint}"
        )
    return found


def _weights_entry(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The names and tensors in what a file holds, from below "state_dict" if they are there."""
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__} and no weights by name; save model.state_dict()"
        )
    for entry in _ENTRIES:
        inner = content.get(entry)
        if isinstance(inner, Mapping) and any(isinstance(value, torch.Tensor) for value in inner.values()):
            content = inner
            break
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        names = ", ".join(map(repr, list(content)[:5])) or "nothing"
        raise CheckpointError(
            f"{path}: no weights in it; it holds {names}. Weights are looked for at the top and in "
            f"{', '.join(_ENTRIES)}"
        )
    return tensors


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take off prefixes that every name has."""
    prefix = next((wrapper for wrapper in _WRAPPERS if all(name.startswith(wrapper) for name in tensors)), None)
    if prefix is None:
        return tensors
    return _unwrapped({name[len(prefix) :]: value for name, value in tensors.items()})


# -- PyTorch checkpoints


def _read_pickle(path: Path, ignore_objects: bool) -> tuple[Any, tuple[str, ...]]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True), ()
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            content, foreign = _read_zip(path, "data")
            if foreign and ignore_objects:
                return content, foreign
            if foreign:
                raise CheckpointError(
                    f"{path}: holds objects of {_some(foreign)} beside its weights; building them would run code, so "
                    "the file is refused. --ignore-objects reads the tensors alone and builds nothing else"
                ) from error
        raise CheckpointError(
            f"{path}: cannot be read without running code that it may hold ({_reason(error)}). If you trust it, save "
            'the weights alone where it was made: torch.save(torch.load(FILE, weights_only=False)["state_dict"], NEW)'
        ) from error
    # A file that is no checkpoint at all fails in many ways, by what its first bytes look like.
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path}: no PyTorch checkpoint, or a damaged one ({type(error).__name__}: {_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    about = [line for line in lines if "Unsupported" in line or "WeightsUnpickler" in line]
    text = (about or lines or [type(error).__name__])[0].removeprefix("WeightsUnpickler error: ")
    return text.split(" was not an allowed global")[0]


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more classes" if len(names) > 3 else "")


# -- Reading archives by hand


class _Inert:
    """Stands for an object of any class: takes what the file gives it, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:  # of classes derived from dict
        pass

    def append(self, value: Any) -> None:  # of classes derived from list
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:  # of classes derived from set
        pass


class _StorageType:
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Reader(pickle.Unpickler):
    """An unpickler that knows tensors and dictionaries, and puts [`_Inert`] for every other class and function.

    No name in the file is ever looked up in a module, so that nothing but the functions below can be called.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str, part: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}{part}.pkl")))
        self._archive, self._folder = archive, f"{root}{part}/"
        self._storages: dict[str, torch.Tensor] = {}
        self.foreign: dict[str, None] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _parameter
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        if module != "__torch__" and not module.startswith("__torch__."):  # classes of the archive's own program
            self.foreign[f"{module}.{name}"] = None
        return _Inert

    def persistent_load(self, pid: Any) -> torch.Tensor:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("it refers to something other than the data of a tensor")
        _, kind, key, _, count = pid
        if not isinstance(kind, _StorageType):
            raise pickle.UnpicklingError("it holds tensors of a type that is not known")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}{key}"))
            storage = torch.frombuffer(data, dtype=kind.dtype) if data else torch.empty(0, dtype=kind.dtype)
            if len(storage) < count:
                raise pickle.UnpicklingError(f"the data of tensor {key} are cut off")
            self._storages[key] = storage
        return self._storages[key]


def _tensor(storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> torch.Tensor:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride), default=0) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor reaches beyond its data")
    return torch.as_strided(storage, size, stride, offset).clone()


def _parameter(data: torch.Tensor, *_: Any) -> torch.Tensor:
    return data


def _root(archive: zipfile.ZipFile) -> str:
    """The folder inside the archive, with its slash."""
    name = next((name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl"), None)
    return "" if name is None else name[: -len("data.pkl")]


def _read_zip(path: Path, part: str) -> tuple[Any, tuple[str, ...]]:
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                raise CheckpointError(f"{path}: written on a machine of another byte order; save it again on this one")
            reader = _Reader(archive, root, part)
            return reader.load(), tuple(reader.foreign)
    except CheckpointError:
        raise
    # Whatever else a damaged or hostile stream makes the unpickler do wrong.
    except Exception as error:
        raise CheckpointError(f"{path}: a damaged archive: {_reason(error)}") from error


# -- TorchScript archives


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return f"{_root(archive)}constants.pkl" in archive.namelist()


def _read_torchscript(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """Tensors of the modules by their dotted names, and the activation that the program uses."""
    module, _ = _read_zip(path, "data")
    tensors: dict[str, torch.Tensor] = {}
    pending = [("", module)]
    while pending:
        prefix, value = pending.pop()
        if isinstance(value, torch.Tensor):
            tensors[prefix[:-1]] = value
        elif isinstance(value, _Inert) and isinstance(value.state, dict):
            pending += [(f"{prefix}{name}.", inner) for name, inner in reversed(value.state.items())]
    constants, _ = _read_zip(path, "constants")
    with zipfile.ZipFile(path) as archive:
        program = "".join(archive.read(name).decode("utf-8", "replace") for name in _programs(archive))
    numbers = [float(x) for x in constants if isinstance(x, torch.Tensor) and x.numel() == 1]
    if "sigmoid" in program and ("1.702" in program or any(abs(x - _QUICK_GELU) < 1e-3 for x in numbers)):
        return tensors, "quick_gelu"
    return tensors, "gelu" if "torch.gelu(" in program else None


def _programs(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.startswith(f"{_root(archive)}code/") and name.endswith(".py")]
