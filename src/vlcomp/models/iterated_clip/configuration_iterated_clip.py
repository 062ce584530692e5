"""Configuration of Iterated-CLIP."""

import math
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CLIPConfig

_AGENTS = ("language", "vision")


@strict
class IteratedCLIPConfig(CLIPConfig):
    """Configuration of an [`IteratedCLIPModel`]: two CLIP towers, a codebook, and a record of how it was trained.

    `IteratedCLIPConfig.from_pretrained` also reads the configuration of a CLIP checkpoint, as that of a model without
    a codebook; with `use_codebook=True` the towers keep their weights and everything between them is drawn anew.

    Args:
        use_codebook (`bool`, defaults to `True`):
            Whether images and texts are mixtures of codes. `False` gives the heads of a plain CLIP.
        codebook_size (`int`, defaults to 4096):
            Number of codes. Their size, and that of the embeddings, is `projection_dim` (512).
        temperature (`float`, defaults to 1000.0):
            Divisor of the scores before sparsemax; 1000 is the value of the public configuration. How many codes are
            active depends on it and on `codebook_size`: with scores of unit variance and some 50 tokens, 1000 leaves
            about 2,300 of 4,096 active, but all of 512. For `K` codes start a search near `1000 * K / 4096` and well
            below.
        codebook_initializer_std (`float`, defaults to 1.0):
            Standard deviation of the codes at the start; not specified by the paper. 1 gives scores of unit variance.
        chunk_size (`int`, defaults to 16):
            Images or texts whose tokens are scored against all codes at a time. Bounds the memory to `chunk_size *
            tokens * codebook_size` numbers and changes no result but its rounding.
        num_generations (`int`, *optional*):
            Generations of the training run. This and the fields below are written by the trainer and change nothing in
            what the model computes; `None` says that the model was not trained with the method.
        generation_steps (`int`, *optional*):
            Steps of a generation.
        codebook_freeze_steps (`int`, *optional*):
            Steps at the start of each generation but the first with a frozen codebook.
        warmup_steps (`float`, *optional*):
            Steps of the first rise of the learning rate.
        rewarmup_steps (`int`, *optional*):
            Steps of its rise after each spawn.
        rewarmup_start (`float`, *optional*):
            Share of the learning rate with which that rise begins.
        agent (`str`, *optional*):
            The agent that is replaced: `"language"` or `"vision"`.
        spawn_seed (`int`, *optional*):
            Seed from which the weights of new agents are drawn.
        learning_rate (`float`, *optional*):
            The highest learning rate.
        lr_scheduler_type (`str`, *optional*):
            Its schedule.
        generation (`int`, *optional*):
            The generation, counted from 1, at whose end or within which the model was saved.
        **kwargs:
            Arguments of `CLIPConfig` (`text_config`, `vision_config`, `projection_dim`, `logit_scale_init_value`).

    Raises:
        ValueError: for a codebook with fewer than two codes, a temperature that is not positive, or another size that
            is. Assigning a value of the wrong type raises at once; ranges are also checked when the configuration is
            saved.

    Example:
        >>> from vlcomp.models.iterated_clip import IteratedCLIPConfig
        >>> config = IteratedCLIPConfig(codebook_size=512, temperature=125)
        >>> config.use_codebook, config.projection_dim, config.num_generations
        (True, 512, None)
    """

    model_type = "iterated_clip"

    use_codebook: bool = True
    codebook_size: int = 4096
    temperature: float | int = 1000.0
    codebook_initializer_std: float | int = 1.0
    chunk_size: int = 16
    num_generations: int | None = None
    generation_steps: int | None = None
    codebook_freeze_steps: int | None = None
    warmup_steps: float | int | None = None
    rewarmup_steps: int | None = None
    rewarmup_start: float | int | None = None
    agent: str | None = None
    spawn_seed: int | None = None
    learning_rate: float | int | None = None
    lr_scheduler_type: str | None = None
    generation: int | None = None

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration; that of a plain CLIP is one without a codebook.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                Folder, file or Hub repository.
            **kwargs:
                As in `PreTrainedConfig.get_config_dict`.

        Returns:
            `tuple[dict, dict]`: the entries of the configuration, and the arguments that were not used.

        Raises:
            ValueError: if it is the configuration of another kind of model.
        """
        entries, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        found = entries.get("model_type")
        if found == "clip":
            entries = {**entries, "model_type": cls.model_type, "use_codebook": False}
        elif found not in (None, cls.model_type):
            raise ValueError(
                f"pretrained_model_name_or_path={str(pretrained_model_name_or_path)!r} holds a model of type "
                f"{found!r}; {cls.__name__} reads 'clip' and {cls.model_type!r}"
            )
        return entries, unused

    def validate_codebook(self) -> None:
        """Check the sizes of the codebook."""
        if self.codebook_size < 2:
            raise ValueError(
                f"codebook_size={self.codebook_size} must be at least 2: with one code all images and texts have the "
                "same embedding (the paper uses 4096; use_codebook=False gives a plain CLIP)"
            )
        for name in ("temperature", "codebook_initializer_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be finite and above 0")
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size={self.chunk_size} must be at least 1")
        if self.projection_dim is None or self.projection_dim < 1:
            raise ValueError(f"projection_dim={self.projection_dim} must be at least 1")

    def validate_training_record(self) -> None:
        """Check the fields of the training record."""
        if self.agent is not None and self.agent not in _AGENTS:
            raise ValueError(f"agent={self.agent!r} is not one of {', '.join(map(repr, _AGENTS))}")
        for name, least in (("num_generations", 1), ("generation_steps", 1), ("codebook_freeze_steps", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")


__all__ = ["IteratedCLIPConfig"]
