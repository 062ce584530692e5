"""A frozen CLIP whose towers take prompts in."""

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPModel
from transformers.utils import can_return_tuple

from .classes_comma import text_lengths
from .configuration_comma import CommaConfig
from .prompts_comma import CommaPrompts, Placement, PromptedEncoder


class PromptedCLIP(CLIPModel):
    """CLIP's towers and projections, frozen, with prompts put in; what [`CommaModel`] builds on.

    Args:
        config ([`CommaConfig`]):
            Sizes of the towers, and which prompts there are.
    """

    config: CommaConfig
    config_class = CommaConfig

    def __init__(self, config: CommaConfig):
        config.validate_prompts()  # the configuration may have been changed since it was made
        super().__init__(config)
        self.text_model.encoder = PromptedEncoder(self.text_model.encoder)
        self.vision_model.encoder = PromptedEncoder(self.vision_model.encoder)
        self.prompts = CommaPrompts(config)
        self.post_init()
        self.freeze_clip()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # The lists and not the module that holds them: one without parameters of its own counts as loaded. Linear maps
        # and norms of the generator are the base class's to initialise, with `initializer_range`.
        if isinstance(module, nn.ParameterList):
            for prompt in module:
                init.normal_(prompt, std=self.config.prompt_std)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved model, as in `PreTrainedModel.from_pretrained`; CLIP is frozen.

        Args:
            *args, **kwargs:
                Those of `PreTrainedModel.from_pretrained`.

        Returns:
            [`CommaModel`], with `output_loading_info=True` in a tuple with the report.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        # Loading puts new parameters in, which all want a gradient.
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_clip()
        return loaded

    def freeze_clip(self) -> None:
        """Let only the prompts want a gradient, and of these only what can get one."""
        self.requires_grad_(False)
        self.prompts.requires_grad_(True)
        if self.config.detach_generator:
            for part in (*self.prompts.projections[1:], *self.prompts.blocks):
                part.requires_grad_(False)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Embed texts, with the prompts between the start token and their words.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                Texts, padded on the right; at most `config.max_text_length` tokens and any padding.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(1, length)`, *optional*):
                Positions of the tokens; only without text prompts.
            **kwargs:
                Further arguments of `CLIPModel.get_text_features`, such as `output_hidden_states`.

        Returns:
            `BaseModelOutputWithPooling`: its `pooler_output` is projected, not normalised; hidden states hold the
            prompts at positions 1 to `n_ctx`.

        Raises:
            ValueError: if a text and the prompts do not fit the positions.
        """
        if not self.config.text_prompt_depth:
            return super().get_text_features(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs
            )
        if position_ids is not None:
            raise ValueError("position_ids was given, but the prompts move the positions of a text; leave it out")
        input_ids, attention_mask = self._with_places(input_ids, attention_mask)
        # On entry to the first layer, positions are already added to the embeddings.
        positions = self.text_model.embeddings.position_embedding.weight[1 : 1 + self.config.n_ctx]
        placement = Placement([self.prompts.text[0] + positions, *self.prompts.text[1:]], append=False)
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, prompts=placement, **kwargs)
        _require_used(placement)
        output.pooler_output = self.text_projection(output.pooler_output)
        return output

    @can_return_tuple
    def get_image_features(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Embed images, with the prompts after their patches.

        Args:
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`):
                Images.
            interpolate_pos_encoding (`bool`, defaults to `False`):
                Whether to fit the position embeddings to images of another size.
            **kwargs:
                Further arguments of `CLIPModel.get_image_features`, such as `output_hidden_states`.

        Returns:
            `BaseModelOutputWithPooling`: its `pooler_output` is projected, not normalised; hidden states hold the
            prompts in their last `n_ctx` positions.
        """
        prompts = self.prompts.vision_prompts()
        if not prompts:
            return super().get_image_features(
                pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs
            )
        # The norm works on each position alone, so this is what appending before it gives.
        norm = self.vision_model.pre_layrnorm
        placement = Placement([norm(prompts[0].to(norm.weight.dtype)), *prompts[1:]], append=True)
        output = self.vision_model(
            pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, prompts=placement, **kwargs
        )
        _require_used(placement)
        output.pooler_output = self.visual_projection(output.pooler_output)
        return output

    def _with_places(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Open `n_ctx` places after the start token; what stands in them is replaced."""
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids must have shape (texts, length), got {tuple(input_ids.shape)}")
        if attention_mask is not None and not attention_mask[:, :1].all():
            raise ValueError("attention_mask begins with 0: texts must be padded on the right (padding_side='right')")
        count, limit = self.config.n_ctx, self.config.max_text_length
        end = self.config.text_config.eos_token_id
        if input_ids.shape[1] > limit:
            lengths = text_lengths(input_ids, end)
            if lengths.max() > limit:
                row = int(lengths.argmax())
                raise ValueError(
                    f"input_ids[{row}] has {int(lengths[row])} tokens, with which the {count} prompts no longer fit "
                    f"the {limit + count} positions; shorten the text to {limit} (truncation=True, max_length={limit})"
                )
            input_ids = input_ids[:, :limit]
            attention_mask = None if attention_mask is None else attention_mask[:, :limit]
        # Not the token at which CLIP pools, and for the legacy value 2 not the highest.
        places = input_ids.new_full((len(input_ids), count), 1 if end == 0 else 0)
        input_ids = torch.cat([input_ids[:, :1], places, input_ids[:, 1:]], dim=1)
        if attention_mask is not None:
            ones = attention_mask.new_ones(len(attention_mask), count)
            attention_mask = torch.cat([attention_mask[:, :1], ones, attention_mask[:, 1:]], dim=1)
        return input_ids, attention_mask


def _require_used(placement: Placement) -> None:
    if not placement.used:
        raise RuntimeError(
            "this version of transformers does not hand arguments on to CLIP's encoder, so that the prompts were left "
            "out; use a version between those that the package names"
        )


__all__ = ["PromptedCLIP"]
