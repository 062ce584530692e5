"""The table of methods: the one place that ties a method's parts together.

The command line (`vlcomp train <method>`, `vlcomp reproduce <method>`), the demo and the model cards are driven by it.
Parts are named as `"module:attribute"`, so that reading the table imports nothing.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from .errors import ArgumentError


@dataclass(frozen=True)
class Method:
    """One method of the package.

    Args:
        name (`str`):
            Name on the command line.
        title (`str`):
            Name in tables and cards.
        model (`str`):
            Model class, as `"module:attribute"`.
        trainer (`str`):
            Trainer class.
        arguments (`str`):
            Class of the training arguments.
        example (`str`):
            Example script, relative to the repository.
        study (`str`, *optional*):
            The `Study` that `vlcomp reproduce` runs.
        demo (`str`, *optional*):
            Function that adds the method's rows to `vlcomp demo`.
        paper (`str`, *optional*):
            arXiv identifier.
        data (`str`, defaults to `"captions"`):
            What it learns from: images with `"captions"`, or with `"labels"`.
        new (`str`, *optional*, defaults to `new_clip`):
            Function that makes an untrained model, for `vlcomp train METHOD --from-scratch`; `None` if the method
            only starts from a pre-trained one.
        options (`tuple[tuple[str, type, str], ...]`):
            Its arguments beyond those of `new_clip` that are options of the command: name, type and help.
    """

    name: str
    title: str
    model: str
    trainer: str
    arguments: str
    example: str
    study: str | None = None
    demo: str | None = None
    paper: str | None = None
    data: str = "captions"
    new: str | None = "vlcomp.models.from_scratch:new_clip"
    options: tuple[tuple[str, type, str], ...] = ()

    def load(self, part: str) -> Any:
        """Import a part: `model`, `trainer`, `arguments`, `study`, `demo` or `new`."""
        module, attribute = getattr(self, part).split(":")
        return getattr(importlib.import_module(module), attribute)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="clip",
            title="CLIP",
            model="transformers:CLIPModel",
            trainer="vlcomp.training:ContrastiveTrainer",
            arguments="vlcomp.training:ContrastiveTrainingArguments",
            example="examples/train_clip.py",
            study="vlcomp.studies.clip:STUDY",
            demo="vlcomp.studies.clip:demo",
            paper="2103.00020",
        ),
        Method(
            name="imc-cmr",
            title="IMC/CMR-CLIP",
            model="vlcomp.models.imc_cmr_clip:ImcCmrCLIPModel",
            trainer="vlcomp.training:ImcCmrTrainer",
            arguments="vlcomp.training:ImcCmrTrainingArguments",
            example="examples/train_imc_cmr_clip.py",
            study="vlcomp.studies.imc_cmr:STUDY",
            demo="vlcomp.studies.imc_cmr:demo",
            paper="2306.08832",
        ),
        Method(
            name="iterated-clip",
            title="Iterated-CLIP",
            model="vlcomp.models.iterated_clip:IteratedCLIPModel",
            trainer="vlcomp.training:IteratedCLIPTrainer",
            arguments="vlcomp.training:IteratedCLIPTrainingArguments",
            example="examples/train_iterated_clip.py",
            study="vlcomp.studies.iterated_clip:STUDY",
            demo="vlcomp.studies.iterated_clip:demo",
            paper="2404.02145",
            new="vlcomp.models.from_scratch:new_iterated_clip",
            options=(
                ("codebook_size", int, "number of codes (small: 512)"),
                ("temperature", float, "temperature of the codebook (default: 1000 / 4096 for each code)"),
                ("use_codebook", bool, "whether there is a codebook; without one it is a plain CLIP"),
            ),
        ),
        Method(
            name="comma",
            title="COMMA",
            model="vlcomp.models.comma:CommaModel",
            trainer="vlcomp.training:CommaTrainer",
            arguments="vlcomp.training:CommaTrainingArguments",
            example="examples/train_comma.py",
            study="vlcomp.studies.comma:STUDY",
            demo="vlcomp.studies.comma:demo",
            paper="2401.00268",
            data="labels",
        ),
        Method(
            name="discriminative-lvlm",
            title="Discriminative LVLM",
            model="vlcomp.models.discriminative_lvlm:DiscriminativeLVLMModel",
            trainer="vlcomp.training:DiscriminativeLVLMTrainer",
            arguments="vlcomp.training:DiscriminativeLVLMTrainingArguments",
            example="examples/train_discriminative_lvlm.py",
            study="vlcomp.studies.discriminative_lvlm:STUDY",
            demo="vlcomp.studies.discriminative_lvlm:demo",
            paper="2412.04378",
            new=None,
        ),
    )
}


def get_method(name: str) -> Method:
    """Look a method up by its name on the command line.

    Args:
        name (`str`):
            A key of :data:`METHODS`.

    Returns:
        `Method`

    Raises:
        ArgumentError: for an unknown name; the message gives close ones.
    """
    if name not in METHODS:
        close = get_close_matches(name, METHODS, 2) or list(METHODS)
        raise ArgumentError(f"method={name!r} is not known; did you mean {' or '.join(map(repr, close))}?")
    return METHODS[name]
