"""Configuration of the discriminative LVLM: the LVLM inside, its two readings, and what is trained."""

import math
from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

SUMMARY_TOKENS = ("last", "prompt")
# Parts of a reading, in their order; the image or the text stands between the first two.
PARTS = ("before", "between", "prompt", "after")
# What `from_lvlm` writes from the tokenizer and the chat template; fixed afterwards.
READING_FIELDS = (
    "image_prompt",
    "text_prompt",
    "image_reading",
    "text_reading",
    "text_start_ids",
    "text_end_ids",
    "caption_end_ids",
    "summary_token",
)
TRAINING_FIELDS = (
    "soft_prompts",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "logit_scale_init_value",
)


@strict
class DiscriminativeLVLMConfig(PreTrainedConfig):
    """Configuration of a [`DiscriminativeLVLMModel`].

    [`DiscriminativeLVLMModel.from_lvlm`] fills in all that depends on the LVLM; only the prompts and what is to be
    trained are a matter of choice.

    Args:
        base_config (`PreTrainedConfig` or `dict`):
            Configuration of the LVLM inside.
        base_name_or_path (`str`, *optional*):
            Where the weights of the LVLM are. `None` says that they are in the checkpoint itself.
        base_revision (`str`, *optional*):
            Commit of the LVLM on the Hub.
        base_fingerprint (`dict`, *optional*):
            Shapes and a few weights of the LVLM, by which another one is told.
        image_prompt (`str`, defaults to `"Summarize the provided image in one word:"`):
            What stands after an image.
        text_prompt (`str`, defaults to `"Summarize the provided text in one word:"`):
            What stands after a text.
        image_reading (`dict[str, list[int]]`, *optional*):
            Tokens of the image reading: `before` (the image), `between` (image and prompt), `prompt`, `after`.
        text_reading (`dict[str, list[int]]`, *optional*):
            The same of the text reading.
        text_start_ids (`list[int]`, *optional*):
            Tokens that the tokenizer puts before a text (such as `<s>`); left out, as the reading has its own.
        text_end_ids (`list[int]`, *optional*):
            Tokens that the tokenizer puts after a text.
        caption_end_ids (`list[int]`, *optional*):
            What the next-token loss expects after a caption; empty for nothing.
        summary_token (`str`, defaults to `"last"`):
            Where the embedding is taken: `"last"`, at the end of the reading, the generation prompt of the chat
            template included; or `"prompt"`, at the last token of the prompt.
        soft_prompts (`bool`, defaults to `True`):
            Whether the embeddings of the prompts' tokens are trained, one set for images and one for texts.
        lora_rank (`int`, defaults to 16):
            Rank of the LoRA of the language model; 0 for none.
        lora_alpha (`float`, defaults to 16):
            Scale of the LoRA, divided by the rank.
        lora_dropout (`float`, defaults to 0.0):
            Dropout of the LoRA in training.
        lora_target_modules (`list[str]`):
            Names of the linear layers of the language model that get a LoRA.
        logit_scale_init_value (`float`, defaults to 2.6593):
            Logarithm of the factor from cosine to logit at the start; that of a temperature of 0.07.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of soft prompts before they are set to the embeddings of the prompt.

    Raises:
        ValueError: for values that do not fit each other. Assigning a value of the wrong type raises at once;
            relations between fields are also checked when a model is built and when the configuration is saved.

    Reference:
        Ouali, Bulat et al. 2025 (CVPR, arXiv 2412.04378).

    Example:
        >>> from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMConfig
        >>> DiscriminativeLVLMConfig(lora_rank=8).base_config.model_type
        'llava'
    """

    model_type = "discriminative_lvlm"
    sub_configs_defaults = {"base_config": SubConfigSpec(config_class=AutoConfig, model_type="llava")}

    base_config: dict | PreTrainedConfig | None = None
    base_name_or_path: str | None = None
    base_revision: str | None = None
    base_fingerprint: dict | None = None
    image_prompt: str = "Summarize the provided image in one word:"
    text_prompt: str = "Summarize the provided text in one word:"
    image_reading: dict | None = None
    text_reading: dict | None = None
    text_start_ids: list[int] = field(default_factory=list)
    text_end_ids: list[int] = field(default_factory=list)
    caption_end_ids: list[int] = field(default_factory=list)
    summary_token: str = "last"
    soft_prompts: bool = True
    lora_rank: int = 16
    lora_alpha: float | int = 16
    lora_dropout: float | int = 0.0
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    logit_scale_init_value: float | int = math.log(1 / 0.07)
    initializer_range: float | int = 0.02

    @property
    def text_config(self) -> PreTrainedConfig:
        """Configuration of the language model."""
        return self.base_config.get_text_config()

    @property
    def hidden_size(self) -> int:
        """Size of an embedding."""
        return self.text_config.hidden_size

    @property
    def image_token_id(self) -> int:
        """The token in whose place an image stands."""
        for name in ("image_token_id", "image_token_index"):
            if isinstance(getattr(self.base_config, name, None), int):
                return getattr(self.base_config, name)
        raise ValueError(
            f"base_config of type {self.base_config.model_type!r} has no image_token_id: it places images in another "
            "way than by a token, which is not supported"
        )

    def reading(self, modality: str) -> dict[str, list[int]]:
        """Tokens of a reading.

        Args:
            modality (`str`):
                `"image"` or `"text"`.

        Returns:
            `dict[str, list[int]]`: `before`, `between`, `prompt`, `after`.

        Raises:
            ValueError: if there is none.
        """
        found = getattr(self, f"{modality}_reading")
        if found is None:
            raise ValueError(
                f"{modality}_reading is None; start from DiscriminativeLVLMModel.from_lvlm('<LVLM>'), which reads it "
                "off the tokenizer and the chat template"
            )
        return found

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> PreTrainedConfig:
        """Configuration of the language model; the arguments are those of `PreTrainedConfig` and change nothing."""
        return self.text_config

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration.

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
        if found not in (None, cls.model_type):
            raise ValueError(
                f"pretrained_model_name_or_path={str(pretrained_model_name_or_path)!r} holds a model of type "
                f"{found!r}, not {cls.model_type!r}; for an LVLM there is DiscriminativeLVLMModel.from_lvlm"
            )
        return entries, unused

    def validate_readings(self) -> None:
        """Check the settings against each other."""
        if self.summary_token not in SUMMARY_TOKENS:
            raise ValueError(
                f"summary_token={self.summary_token!r} is not one of {', '.join(map(repr, SUMMARY_TOKENS))}"
            )
        for name in ("image_prompt", "text_prompt"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name}={getattr(self, name)!r} is empty")
        for name in ("image_reading", "text_reading"):
            reading = getattr(self, name)
            if reading is not None and (sorted(reading) != sorted(PARTS) or not reading["prompt"]):
                raise ValueError(
                    f"{name} must have the parts {', '.join(PARTS)}, with at least one token of the prompt; got "
                    f"{reading!r}"
                )
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank={self.lora_rank} must not be negative; 0 is for no LoRA")
        if not 0 < self.lora_alpha < math.inf:
            raise ValueError(f"lora_alpha={self.lora_alpha} must be finite and above 0")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout={self.lora_dropout} must be at least 0 and below 1")
        if self.lora_rank and not self.lora_target_modules:
            raise ValueError("lora_target_modules is empty; for no LoRA pass lora_rank=0")


__all__ = ["DiscriminativeLVLMConfig"]
