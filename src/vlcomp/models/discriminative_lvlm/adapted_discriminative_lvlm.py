"""A frozen LVLM with soft prompts and a LoRA: making it, loading it, saving it."""

import copy
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from .adapters_discriminative_lvlm import SoftPrompts, Switch, inject_lora, merged_state_dict, switch_lora
from .base_discriminative_lvlm import fingerprint, hub_arguments, load_lvlm, require_causal, where_from
from .checkpoint_discriminative_lvlm import load_base, put_adapters, read_adapters
from .configuration_discriminative_lvlm import READING_FIELDS, TRAINING_FIELDS, DiscriminativeLVLMConfig
from .readings_discriminative_lvlm import load_tokenizer, read_template, require_template


class AdaptedLVLM(PreTrainedModel):
    """What a [`DiscriminativeLVLMModel`] is, without what it computes.

    Args:
        config ([`DiscriminativeLVLMConfig`]):
            As [`~DiscriminativeLVLMModel.from_lvlm`] makes it.
        lvlm (`PreTrainedModel`, *optional*):
            The LVLM; a random one if not given.
    """

    config: DiscriminativeLVLMConfig
    config_class = DiscriminativeLVLMConfig
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Small steps on what is trained are lost in bfloat16.
    _keep_in_fp32_modules_strict = ["logit_scale", "lora_A", "lora_B", "soft_prompts"]  # noqa: RUF012 (transformers')

    def __init__(self, config: DiscriminativeLVLMConfig, lvlm: PreTrainedModel | None = None):
        super().__init__(config)
        config.validate_readings()  # the configuration may have been changed since it was made
        self.lvlm = AutoModelForImageTextToText.from_config(config.base_config) if lvlm is None else lvlm
        require_causal(self.lvlm)
        self.soft_prompts = SoftPrompts(config) if config.soft_prompts else None
        place = None if lvlm is None else lvlm.get_input_embeddings().weight.device
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value), device=place))
        if lvlm is not None:
            for module in lvlm.modules():
                module._is_hf_initialized = True  # has its weights
        self.post_init()
        self._adapters_on = True
        if config.lora_rank:
            inject_lora(self.language_model, config)
        self._freeze()
        if self.soft_prompts is not None and not self.logit_scale.is_meta:
            self._start_at_prompts()
        if config.base_name_or_path is not None:  # the weights of the LVLM stay where they are
            trained = self.trainable_parameters()
            self._keys_to_ignore_on_save = {name for name in self.state_dict() if name not in trained}

    # -- from an LVLM, from a checkpoint, to a checkpoint

    @classmethod
    def from_lvlm(
        cls,
        name_or_path: str | PathLike | PreTrainedModel,
        *,
        processor: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> "AdaptedLVLM":
        """Make a discriminative LVLM from any image-text-to-text model with a causal language model.

        Args:
            name_or_path (`str`, `PathLike` or `PreTrainedModel`):
                Folder or Hub repository of the LVLM, or the LVLM itself, which is then part of the new model. One that
                was loaded from a place is taken to be as it is there: save it first if its weights were changed.
            processor (processor or tokenizer, *optional*):
                Gives tokens and chat template; by default the tokenizer beside the LVLM.
            chat_template (`str`, *optional*):
                Jinja template to take instead of the LVLM's.
            **kwargs:
                Fields of [`DiscriminativeLVLMConfig`] (`image_prompt`, `text_prompt`, `summary_token`, `soft_prompts`,
                `lora_rank`, ...), and arguments of `from_pretrained` (`revision`, `dtype`, `device_map`, ...).

        Returns:
            [`DiscriminativeLVLMModel`]: in evaluation mode. Untrained, it embeds as the LVLM with the hand-written
            prompts does.

        Raises:
            ValueError: if it is no such LVLM, there is no tokenizer or chat template, or settings do not fit.

        Example:
            >>> from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel
            >>> from vlcomp.testing import tiny_llava, tiny_lvlm_processor
            >>> model = DiscriminativeLVLMModel.from_lvlm(
            ...     tiny_llava(), processor=tiny_lvlm_processor("llava"), lora_rank=4, soft_prompts=False
            ... )
            >>> all("lora" in name or name == "logit_scale" for name in model.trainable_parameters())
            True
        """
        given = {name: kwargs.pop(name) for name in (*READING_FIELDS, *TRAINING_FIELDS) if name in kwargs}
        if isinstance(name_or_path, PreTrainedModel):
            if kwargs:
                raise ValueError(f"{', '.join(sorted(kwargs))}: cannot be given with a loaded LVLM; load it with them")
            lvlm, place, revision = name_or_path, *where_from(name_or_path)
            if processor is None and place is None:
                raise ValueError("processor is None: an LVLM that was not loaded from a place needs one")
            hub: dict[str, Any] = {}
        else:
            hub = hub_arguments(kwargs)
            lvlm, place, revision = load_lvlm(name_or_path, **kwargs)
        if processor is None:
            tokenizer, template = load_tokenizer(place, chat_template, **{**hub, "revision": revision})
        else:
            tokenizer = getattr(processor, "tokenizer", processor)
            template = chat_template or getattr(processor, "chat_template", None) or tokenizer.chat_template
            template = require_template(template, type(processor).__name__)
        require_causal(lvlm)
        config = cls.config_class(base_config=copy.deepcopy(lvlm.config), **given)
        readings = read_template(tokenizer, template, config.image_token_id, config.image_prompt, config.text_prompt)
        for name, value in readings.items():
            if name not in given:
                setattr(config, name, value)
        config.base_name_or_path, config.base_revision = place, revision
        config.base_fingerprint = fingerprint(lvlm)
        config.dtype = lvlm.dtype
        return cls(config, lvlm).eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike,
        *model_args: Any,
        base: str | PathLike | PreTrainedModel | None = None,
        check_base: bool = True,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint: adapters, whose LVLM is loaded from its own place, or a full one.

        Args:
            pretrained_model_name_or_path (`str` or `PathLike`):
                Folder or Hub repository.
            base (`str`, `PathLike` or `PreTrainedModel`, *optional*):
                The LVLM, if it is no longer where it was, or the loaded LVLM, which is then part of the new model.
            check_base (`bool`, defaults to `True`):
                Whether to refuse an LVLM other than the adapters were trained on.
            output_loading_info (`bool`, defaults to `False`):
                Whether to return what was missing and unexpected too.
            *model_args, **kwargs:
                As in `PreTrainedModel.from_pretrained` (`revision`, `dtype`, `device_map`, ...). `dtype` is that of
                the LVLM; adapters keep theirs.

        Returns:
            [`DiscriminativeLVLMModel`]: in evaluation mode; with `output_loading_info=True` also a `dict`.

        Raises:
            ValueError: if the LVLM is missing, or another than the adapters were trained on; if the prompts have
                another length; if weights are missing.
        """
        fixed = sorted(name for name in (*READING_FIELDS, *TRAINING_FIELDS) if name in kwargs)
        if fixed:
            raise ValueError(
                f"{', '.join(fixed)}: fixed in a checkpoint, because its weights belong to it; start anew with "
                "from_lvlm to change it"
            )
        place, hub = pretrained_model_name_or_path, hub_arguments(kwargs)
        config = kwargs.pop("config", None)
        if not isinstance(config, PreTrainedConfig):
            config = cls.config_class.from_pretrained(config or place, **hub)
        if config.base_name_or_path is None:
            if base is not None:
                raise ValueError(f"base: {str(place)!r} holds the weights of its LVLM itself; leave base out")
            model, info = super().from_pretrained(
                place, *model_args, config=config, output_loading_info=True, **kwargs
            )
            if info["missing_keys"]:
                raise ValueError(f"{str(place)!r} lacks weights: {', '.join(sorted(info['missing_keys'])[:3])}")
            model._freeze()  # loading puts new parameters in
            model._read_generation_config(place, hub)
        else:
            weights = read_adapters(place, kwargs)
            lvlm = load_base(place, config, base, check_base, kwargs)
            config.name_or_path = str(place)
            model = cls(config, lvlm).eval()
            info = put_adapters(place, model, weights)
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: str | PathLike, **kwargs: Any) -> None:
        """Write what is trained (megabytes) and where the LVLM is; all weights if the LVLM is in no place of its own.

        Args:
            save_directory (`str` or `PathLike`):
                Folder; made if missing.
            **kwargs:
                As in `PreTrainedModel.save_pretrained`.
        """
        super().save_pretrained(save_directory, **{"save_original_format": False, **kwargs})
        if self.config.base_name_or_path is None:
            self.lvlm.generation_config.save_pretrained(save_directory)

    def merge_and_save(self, save_directory: str | PathLike, **kwargs: Any) -> None:
        """Write a checkpoint that needs no other: the LVLM with the LoRA in its weights, and the soft prompts.

        The model itself stays as it is. The processor is saved by itself, as with every model of transformers:
        `processor.save_pretrained(save_directory)`.

        Args:
            save_directory (`str` or `PathLike`):
                Folder; made if missing.
            **kwargs:
                As in `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: if the LVLM is quantised.
        """
        config, ignored = self.config, self._keys_to_ignore_on_save
        state = merged_state_dict(self)
        merged = {"lora_rank": 0, "base_name_or_path": None, "base_revision": None, "base_fingerprint": None}
        try:
            self.config, self._keys_to_ignore_on_save = copy.deepcopy(config), set()
            for name, value in merged.items():
                setattr(self.config, name, value)
            super().save_pretrained(save_directory, **{"save_original_format": False, **kwargs, "state_dict": state})
        finally:
            self.config, self._keys_to_ignore_on_save = config, ignored
        self.lvlm.generation_config.save_pretrained(save_directory)

    def _read_generation_config(self, place: str | PathLike, hub: Mapping[str, Any]) -> None:
        file = cached_file(place, GENERATION_CONFIG_NAME, _raise_exceptions_for_missing_entries=False, **hub)
        if file is not None:
            self.lvlm.generation_config = GenerationConfig.from_pretrained(place, **hub)

    def _freeze(self) -> None:
        trained = self.trainable_parameters()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trained)

    # -- parts

    @property
    def language_model(self) -> PreTrainedModel:
        """The language model of the LVLM, without its head."""
        return self.lvlm.model.language_model

    @property
    def lm_head(self) -> nn.Module:
        """The language head, for `next_token_loss`."""
        return self.lvlm.get_output_embeddings()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the LVLM; what is trained may be in float32 beside it."""
        return self.lvlm.dtype

    @property
    def device(self) -> torch.device:
        """Where sequences begin: with `device_map` an LVLM may be on several devices."""
        return self.get_input_embeddings().weight.device

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the LVLM."""
        return self.lvlm.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language head of the LVLM."""
        return self.lvlm.get_output_embeddings()

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained: soft prompts, LoRA and logit scale.

        Returns:
            `dict[str, nn.Parameter]`: by name; all that [`~DiscriminativeLVLMModel.save_pretrained`] writes.
        """
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name == "logit_scale" or name.startswith("soft_prompts.") or ".lora_" in name
        }

    def disable_adapters(self) -> Switch:
        """Do without soft prompts and LoRA: the LVLM as it was, with the hand-written prompts.

        Returns:
            A context: `with model.disable_adapters(): ...` switches them on again at its end; without `with`, they are
            off until [`~DiscriminativeLVLMModel.enable_adapters`].
        """
        switch = Switch(self, self._adapters_on)
        self.set_adapters(False)
        return switch

    def enable_adapters(self) -> None:
        """Use soft prompts and LoRA again."""
        self.set_adapters(True)

    def set_adapters(self, on: bool) -> None:
        """Use soft prompts and LoRA, or not; what trains is left as it is.

        Args:
            on (`bool`):
                Whether to use them.
        """
        self._adapters_on = on
        switch_lora(self.lvlm, on)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, SoftPrompts):
            for parameter in module.parameters():
                init.normal_(parameter, std=self.config.initializer_range)
        elif module is self:
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)

    @torch.no_grad()
    def _start_at_prompts(self) -> None:
        """Begin soft prompts at the embeddings of the prompts' own tokens; untrained, they change nothing."""
        table = self.get_input_embeddings().weight
        for modality, parameter in self.soft_prompts.named_parameters():
            ids = torch.tensor(self.config.reading(modality)["prompt"], device=table.device)
            parameter.data = table[ids].float()


__all__ = ["AdaptedLVLM"]
