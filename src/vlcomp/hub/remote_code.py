"""Code that travels with a model, so that `trust_remote_code=True` loads it where vlcomp is not installed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForZeroShotImageClassification
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

_OURS = "vlcomp.models."
_AUTO_CLASSES = {
    "AutoModel": AutoModel,
    # What the stock zero-shot pipeline asks for. A class can announce itself for one auto class only
    # (`register_for_auto_class`), so the entries are written here.
    "AutoModelForZeroShotImageClassification": AutoModelForZeroShotImageClassification,
}


def add_remote_code(folder: Path) -> list[str]:
    """Put the code of a model of this package beside its weights and name it in the configuration.

    Args:
        folder (`Path`):
            Checkpoint; `config.json` (and `processor_config.json`, for a processor of ours) is changed.

    Returns:
        `list[str]`: names of the files of code; none for a model that transformers itself knows.
    """
    if not (folder / "config.json").is_file():
        return []
    config_class = type(AutoConfig.from_pretrained(folder))
    if not config_class.__module__.startswith(_OURS):
        return []
    classes = {"AutoConfig": config_class}
    for name, auto in _AUTO_CLASSES.items():
        found = auto._model_mapping.get(config_class, None)
        if found is not None:
            classes[name] = found
    _write_map(folder / "config.json", classes)
    processor = PROCESSOR_MAPPING.get(config_class, None)
    if processor is not None and processor.__module__.startswith(_OURS):
        classes["AutoProcessor"] = processor
        file = folder / "processor_config.json"
        _write_map(file if file.is_file() else folder / "tokenizer_config.json", {"AutoProcessor": processor})
    sources: set[str] = set()
    for found in classes.values():
        source = sys.modules[found.__module__].__file__
        sources |= {source, *get_relative_import_files(source)}
    for source in sorted(sources):
        shutil.copyfile(source, folder / Path(source).name)
    return sorted(Path(source).name for source in sources)


def _write_map(file: Path, classes: dict[str, type]) -> None:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    names = {auto: f"{found.__module__.rpartition('.')[2]}.{found.__name__}" for auto, found in classes.items()}
    content["auto_map"] = {**content.get("auto_map", {}), **names}
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
