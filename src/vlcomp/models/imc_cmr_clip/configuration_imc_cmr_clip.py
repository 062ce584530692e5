"""Configuration of IMC/CMR-CLIP."""

import math
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CLIPConfig

IMC_MODES = ("paper", "image_anchor", "released")


@strict
class ImcCmrCLIPConfig(CLIPConfig):
    """Configuration of an [`ImcCmrCLIPModel`]: that of a CLIP, and a record of how it was trained.

    The architecture is CLIP's, so `ImcCmrCLIPConfig.from_pretrained` also reads the configuration of any CLIP
    checkpoint, `quick_gelu` included. The fields below change nothing in what the model computes. The trainer writes
    them; `None` says that the model has not been trained with the method.

    Args:
        itc_hard_negatives (`bool`, *optional*):
            Whether hard negatives were part of the image-text contrastive loss (the NegCLIP form).
        imc_weight (`float`, *optional*):
            Weight of the intra-modal contrastive loss; 0 if it was left out. Public scripts use 0.2.
        imc_mode (`str`, *optional*):
            Form of that loss: `"paper"`, `"image_anchor"` or `"released"`.
        cmr_weight (`float`, *optional*):
            Weight of the cross-modal rank loss; 0 if it was left out. Public scripts use 0.2.
        threshold_upper_bound (`float`, *optional*):
            Largest threshold of the rank loss, as a cosine: 0.1, which is 10 logits at CLIP's scale of 100.
        negative_types (`list[str]`, *optional*):
            Names of the types of hard negatives; type id `i` is `negative_types[i]`.
        rank_thresholds (`list[float]`, *optional*):
            Threshold of each type at the end of training, in logits, in the order of `negative_types`.
        **kwargs:
            Arguments of `CLIPConfig` (`text_config`, `vision_config`, `projection_dim`, ...).

    Raises:
        ValueError: for a weight or threshold that is negative or not finite, an unknown `imc_mode`, repeated
            `negative_types`, or another number of `rank_thresholds` than of `negative_types`. Assigning a value of the
            wrong type raises at once; relations between fields are also checked when the configuration is saved.

    Example:
        >>> from vlcomp.models.imc_cmr_clip import ImcCmrCLIPConfig
        >>> config = ImcCmrCLIPConfig(imc_weight=0.2, negative_types=["swap"], rank_thresholds=[1.5])
        >>> config.imc_weight, config.cmr_weight, config.text_config.hidden_act
        (0.2, None, 'quick_gelu')
    """

    model_type = "imc_cmr_clip"

    itc_hard_negatives: bool | None = None
    imc_weight: float | int | None = None
    imc_mode: str | None = None
    cmr_weight: float | int | None = None
    threshold_upper_bound: float | int | None = None
    negative_types: list[str] | None = None
    rank_thresholds: list[float | int] | None = None

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration; that of a plain CLIP is taken as it is.

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
            entries = {**entries, "model_type": cls.model_type}
        elif found not in (None, cls.model_type):
            raise ValueError(
                f"pretrained_model_name_or_path={str(pretrained_model_name_or_path)!r} holds a model of type "
                f"{found!r}; {cls.__name__} reads 'clip' and {cls.model_type!r}"
            )
        return entries, unused

    def validate_training_record(self) -> None:
        """Check the fields of the training record against each other."""
        for name in ("imc_weight", "cmr_weight", "threshold_upper_bound"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be finite and not negative")
        if self.imc_mode is not None and self.imc_mode not in IMC_MODES:
            raise ValueError(f"imc_mode={self.imc_mode!r} is not one of {', '.join(map(repr, IMC_MODES))}")
        if self.negative_types is not None and len(set(self.negative_types)) < len(self.negative_types):
            raise ValueError(f"negative_types={self.negative_types} names a type twice")
        if self.rank_thresholds is not None:
            if not all(0 <= value < math.inf for value in self.rank_thresholds):
                raise ValueError(f"rank_thresholds={self.rank_thresholds} must be finite and not negative")
            if self.negative_types is None or len(self.negative_types) != len(self.rank_thresholds):
                raise ValueError(
                    f"rank_thresholds={self.rank_thresholds} needs one name each in negative_types, which is "
                    f"{self.negative_types}"
                )


__all__ = ["ImcCmrCLIPConfig"]
