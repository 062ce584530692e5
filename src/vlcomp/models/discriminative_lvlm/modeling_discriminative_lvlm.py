"""DiscriminativeLVLMModel: a generative LVLM that embeds images and texts, and still generates."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import image_text_contrastive_loss
from transformers.utils import can_return_tuple

from .adapted_discriminative_lvlm import AdaptedLVLM
from .base_discriminative_lvlm import image_arguments
from .outputs_discriminative_lvlm import CaptionedImageOutput, DiscriminativeLVLMOutput
from .readings_discriminative_lvlm import (
    Sequences,
    expand_images,
    image_sequences,
    padded_left,
    plain_tokens,
    text_sequences,
)


class DiscriminativeLVLMModel(AdaptedLVLM):
    """An LVLM that embeds images and texts by two readings, and still generates.

    The image reading is the image and a prompt, the text reading a text and a prompt, each inside the chat template of
    the LVLM; the embedding is the final hidden state of the last token, after the last norm. Trained are soft prompts,
    a LoRA of the language model, and the logit scale; the LVLM itself is frozen.

    Args:
        config ([`DiscriminativeLVLMConfig`]):
            As [`~DiscriminativeLVLMModel.from_lvlm`] makes it.
        lvlm (`PreTrainedModel`, *optional*):
            The LVLM; a random one if not given.

    Reference:
        Ouali, Bulat et al. 2025 (CVPR, arXiv 2412.04378).

    Deviations:
        The wording of the prompts, the position of the summary token and the start of the temperature are not in the
        paper; they are fields of the configuration.

    Example:
        >>> import torch
        >>> from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel
        >>> from vlcomp.testing import tiny_images, tiny_llava, tiny_lvlm_processor
        >>> processor = tiny_lvlm_processor("llava")
        >>> model = DiscriminativeLVLMModel.from_lvlm(tiny_llava(), processor=processor)
        >>> inputs = processor(images=tiny_images(2), text=["a cup", "a star", "a dog"], padding=True)
        >>> with torch.no_grad():
        ...     output = model(**inputs)
        >>> output.logits_per_image.shape
        torch.Size([2, 3])
    """

    # -- embeddings

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Embed images.

        Args:
            pixel_values (`torch.Tensor`):
                As the image processor of the LVLM gives them.
            **kwargs:
                What else it gives (`image_grid_thw`, `image_sizes`, ...).

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` `(images, hidden_size)`, not normalised.

        Raises:
            ValueError: for an argument that the LVLM does not know.
        """
        features, sequences, positions = self._image_reading(pixel_values, None, kwargs)
        hidden = self._hidden_states(sequences, positions, "image", features)
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=_pooled(hidden, sequences))

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Embed texts.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                The texts alone, as the tokenizer gives them, padded on either side; the reading is built here.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding; without it all count.
            **kwargs:
                Ignored: what else a tokenizer gives.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` `(texts, hidden_size)`, not normalised.

        Raises:
            ValueError: for tokens that the model does not have.
        """
        texts = self._plain_tokens("input_ids", input_ids, attention_mask)
        sequences = text_sequences(self.config, texts, self.device)
        hidden = self._hidden_states(sequences, _positions(sequences), "text")
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=_pooled(hidden, sequences))

    @can_return_tuple
    def forward_with_caption(
        self,
        pixel_values: torch.Tensor,
        caption_input_ids: torch.LongTensor,
        caption_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CaptionedImageOutput:
        """Embed images and read on through a caption of each, in one pass.

        Attention is causal, so the embedding, taken before the caption begins, is that of the image alone.

        Args:
            pixel_values (`torch.Tensor`):
                As the image processor of the LVLM gives them.
            caption_input_ids (`torch.LongTensor` of shape `(images, length)`):
                One caption for each image, as the tokenizer gives it, padded on either side.
            caption_attention_mask (`torch.Tensor` of shape `(images, length)`, *optional*):
                1 for tokens, 0 for padding. A row of nothing but 0 has no caption and counts nothing.
            **kwargs:
                What else the image processor gives (`image_grid_thw`, `image_sizes`, ...).

        Returns:
            [`CaptionedImageOutput`]: the language head is not computed.

        Raises:
            ValueError: if there is not one caption for each image, or the model does not have a token.
        """
        captions = self._plain_tokens("caption_input_ids", caption_input_ids, caption_attention_mask)
        features, sequences, positions = self._image_reading(pixel_values, captions, kwargs)
        hidden = self._hidden_states(sequences, positions, "image", features)
        return CaptionedImageOutput(
            pooler_output=_pooled(hidden, sequences),
            caption_hidden_states=hidden[sequences.caption_index],
            caption_labels=sequences.caption_labels,
            caption_rows=sequences.caption_index[0],
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        caption_input_ids: torch.LongTensor | None = None,
        caption_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> DiscriminativeLVLMOutput:
        """Compare images with texts, and read on through captions.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                The texts alone, as the tokenizer gives them. May be left out with `caption_input_ids`.
            pixel_values (`torch.Tensor`):
                Images, as the image processor of the LVLM gives them.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            return_loss (`bool`, *optional*):
                Whether to return the plain symmetric contrastive loss, as in `CLIPModel`; it needs as many images as
                texts.
            caption_input_ids (`torch.LongTensor` of shape `(images, caption_length)`, *optional*):
                Captions for the next-token loss; read in the same pass as the images, with the same embeddings.
            caption_attention_mask (`torch.Tensor` of shape `(images, caption_length)`, *optional*):
                1 for tokens, 0 for padding; a row of nothing but 0 has no caption.
            **kwargs:
                What else the image processor gives (`image_grid_thw`, `image_sizes`, ...).

        Returns:
            [`DiscriminativeLVLMOutput`], or a tuple of its entries with `return_dict=False`.

        Raises:
            ValueError: if images or texts are missing, or sizes do not fit.
        """
        if pixel_values is None or (input_ids is None and caption_input_ids is None):
            missing = "pixel_values" if pixel_values is None else "input_ids"
            raise ValueError(
                f"{missing} is None: forward compares images with texts and needs both; use get_image_features or "
                "get_text_features to embed one of them"
            )
        if caption_input_ids is None:
            read = CaptionedImageOutput(pooler_output=self.get_image_features(pixel_values, **kwargs).pooler_output)
        else:
            read = self.forward_with_caption(pixel_values, caption_input_ids, caption_attention_mask, **kwargs)
        image_embeds = _normalised(read.pooler_output)
        text_embeds = per_text = loss = None
        if input_ids is not None:
            text_embeds = _normalised(self.get_text_features(input_ids, attention_mask).pooler_output)
            per_text = text_embeds @ image_embeds.T
            per_text = per_text * self.logit_scale.exp().to(per_text)
        if return_loss:
            if per_text is None:
                raise ValueError("return_loss=True needs input_ids; the next-token loss is computed by the trainer")
            if len(set(per_text.shape)) > 1:
                raise ValueError(
                    f"return_loss=True needs as many images as texts, got {per_text.shape[1]} and {per_text.shape[0]}"
                )
            loss = image_text_contrastive_loss(per_text)
        return DiscriminativeLVLMOutput(
            loss=loss,
            logits_per_image=None if per_text is None else per_text.T,
            logits_per_text=per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            caption_hidden_states=read.caption_hidden_states,
            caption_labels=read.caption_labels,
            caption_rows=read.caption_rows,
        )

    # -- generation

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate text, as the LVLM does; with the LoRA, unless adapters are disabled.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Chats, each image one token or already as many as it has features. Without them, the image reading is
                continued: what the next-token loss trains, a caption.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            pixel_values (`torch.Tensor`, *optional*):
                Images, as the image processor of the LVLM gives them.
            **kwargs:
                What else it gives, and arguments of `generate` (`max_new_tokens`, `do_sample`, ...).

        Returns:
            As `generate` of the LVLM: the chats and what follows them, or the new tokens alone without `input_ids`.

        Raises:
            ValueError: if there is neither a chat nor an image.
        """
        if hasattr(self.lvlm.model, "rope_deltas"):
            self.lvlm.model.rope_deltas = None  # of the images before
        if pixel_values is None:
            if input_ids is None:
                raise ValueError("input_ids and pixel_values are None; pass a chat, images, or both")
            return self.lvlm.generate(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        names = inspect.signature(self.lvlm.model.get_image_features).parameters
        inputs = image_arguments(self.lvlm, {name: kwargs.pop(name) for name in list(kwargs) if name in names})
        pixel_values = pixel_values.to(self.dtype)
        if input_ids is None:
            features, sequences, positions = self._image_reading(pixel_values, None, inputs)
            embeds = self._embed(sequences, "image", features)
            if positions.ndim == 3:  # generation wants plain positions before those of height and width
                positions = torch.cat([_positions(sequences)[None], positions])
            embeds, mask, positions = padded_left(embeds, sequences.attention_mask, positions)
            return self.lvlm.generate(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, **kwargs)
        image_token = self.config.image_token_id
        lengths = [len(feature) for feature in self._image_features(pixel_values, inputs)]
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if int((input_ids == image_token).sum()) == len(lengths) < sum(lengths):
            input_ids, attention_mask = expand_images(input_ids, attention_mask, image_token, lengths)
        if hasattr(self.lvlm.model, "get_rope_index"):
            kwargs.setdefault("mm_token_type_ids", (input_ids == image_token).int())
        return self.lvlm.generate(
            input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values, **inputs, **kwargs
        )

    # -- how

    def _plain_tokens(
        self, name: str, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> list[list[int]]:
        return plain_tokens(name, input_ids, attention_mask, self.config, self.get_input_embeddings().num_embeddings)

    def _image_features(self, pixel_values: torch.Tensor, inputs: Mapping[str, Any]) -> Sequence[torch.Tensor]:
        """Features of each image: what the vision tower and the projector give the language model."""
        found = self.lvlm.model.get_image_features(pixel_values.to(self.dtype), return_dict=True, **inputs)
        return list(found.pooler_output)

    def _image_reading(
        self, pixel_values: torch.Tensor, captions: list[list[int]] | None, given: Mapping[str, Any]
    ) -> tuple[Sequence[torch.Tensor], Sequences, torch.Tensor]:
        inputs = image_arguments(self.lvlm, given)
        features = self._image_features(pixel_values, inputs)
        if captions is not None and len(captions) != len(features):
            raise ValueError(f"caption_input_ids has {len(captions)} captions for {len(features)} images")
        sequences = image_sequences(self.config, [len(feature) for feature in features], captions, self.device)
        inner = self.lvlm.model
        if hasattr(inner, "get_rope_index"):
            # Asked for here and passed on, so that what the model remembers of other images has no part in it.
            positions = inner.get_rope_index(
                sequences.input_ids,
                mm_token_type_ids=sequences.image_mask.int(),
                image_grid_thw=inputs.get("image_grid_thw"),
                attention_mask=sequences.attention_mask,
            )[0]
        else:
            positions = _positions(sequences)
        return features, sequences, positions

    def _embed(
        self, sequences: Sequences, modality: str, features: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        embeds = self.get_input_embeddings()(sequences.input_ids.masked_fill(sequences.image_mask, 0))
        if self.soft_prompts is not None and self._adapters_on:
            soft = getattr(self.soft_prompts, modality).to(embeds)[sequences.prompt_index.clamp_min(0)]
            embeds = torch.where((sequences.prompt_index >= 0)[..., None], soft, embeds)
        if features is not None:
            embeds = embeds.masked_scatter(sequences.image_mask[..., None], torch.cat(list(features)).to(embeds))
        if torch.is_grad_enabled() and not embeds.requires_grad and self.is_activation_checkpointing:
            embeds.requires_grad_()  # reentrant checkpointing drops the gradients of blocks whose input needs none
        return embeds

    def _hidden_states(
        self,
        sequences: Sequences,
        positions: torch.Tensor,
        modality: str,
        features: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Final hidden states, after the last norm."""
        return self.language_model(
            inputs_embeds=self._embed(sequences, modality, features),
            attention_mask=sequences.attention_mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state


def _positions(sequences: Sequences) -> torch.Tensor:
    length = sequences.input_ids.shape[1]
    return torch.arange(length, device=sequences.input_ids.device).expand(len(sequences.input_ids), -1)


def _pooled(hidden: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), sequences.summary_index.to(hidden.device)]


def _normalised(embeds: torch.Tensor) -> torch.Tensor:
    # In float32 at least: in bfloat16 the similarities of an image would be equal to one another by the dozen.
    embeds = embeds.to(torch.promote_types(embeds.dtype, torch.float32))
    return embeds / embeds.pow(2).sum(dim=-1, keepdim=True).pow(0.5)  # rounds as in CLIPModel


__all__ = ["CaptionedImageOutput", "DiscriminativeLVLMModel", "DiscriminativeLVLMOutput"]
