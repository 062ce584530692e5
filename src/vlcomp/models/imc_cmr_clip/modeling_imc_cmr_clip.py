"""IMC/CMR-CLIP: a CLIP whose forward pass also embeds hard-negative captions."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.clip.modeling_clip import CLIPModel, CLIPOutput
from transformers.utils import can_return_tuple

from .configuration_imc_cmr_clip import ImcCmrCLIPConfig


@dataclass
class ImcCmrCLIPOutput(CLIPOutput):
    """Output of [`ImcCmrCLIPModel`]: that of a CLIP, and the hard negatives.

    Args:
        loss (`torch.Tensor`, *optional*):
            Scalar, the symmetric contrastive loss; with `return_loss=True`.
        logits_per_image (`torch.Tensor` of shape `(images, texts)`):
            Cosines times the logit scale.
        logits_per_text (`torch.Tensor` of shape `(texts, images)`):
            The same, transposed.
        text_embeds (`torch.Tensor` of shape `(texts, projection_dim)`):
            L2-normalised caption embeddings.
        image_embeds (`torch.Tensor` of shape `(images, projection_dim)`):
            L2-normalised image embeddings.
        text_model_output (`BaseModelOutputWithPooling`):
            Output of the text tower for the captions; its `pooler_output` is projected, not normalised.
        vision_model_output (`BaseModelOutputWithPooling`):
            Output of the vision tower, alike.
        negative_text_embeds (`torch.Tensor` of shape `(texts, negatives, projection_dim)`, *optional*):
            L2-normalised embeddings of the hard negatives, 0 in slots without one; with `negative_input_ids`.
    """

    negative_text_embeds: torch.Tensor | None = None


class ImcCmrCLIPModel(CLIPModel):
    """A CLIP to be trained, or trained, with hard-negative captions.

    Weights and embeddings are those of `CLIPModel`: `ImcCmrCLIPModel.from_pretrained("openai/clip-vit-base-patch32")`
    reads any CLIP checkpoint and computes what `CLIPModel` does, and `CLIPModel.from_pretrained` reads what this model
    saves. What is added is [`~ImcCmrCLIPModel.forward`] with hard negatives; the method's losses belong to the
    trainer, which computes them from the embeddings.

    Args:
        config ([`ImcCmrCLIPConfig`]):
            Sizes of the towers, and how the model was trained.

    Reference:
        Zhang, Awal, Agrawal 2024 (CVPR, arXiv 2306.08832).

    Example:
        >>> import tempfile
        >>> import torch
        >>> from vlcomp.models.imc_cmr_clip import ImcCmrCLIPModel
        >>> from vlcomp.testing import save_tiny_checkpoint, tiny_images, tiny_processor
        >>> model = ImcCmrCLIPModel.from_pretrained(save_tiny_checkpoint(tempfile.mkdtemp()))
        >>> inputs = tiny_processor()(
        ...     text=["a red cup", "a blue star"], images=tiny_images(2), padding=True, return_tensors="pt"
        ... )
        >>> negatives = inputs["input_ids"].flip(0)[:, None], inputs["attention_mask"].flip(0)[:, None]
        >>> with torch.no_grad():
        ...     output = model(**inputs, negative_input_ids=negatives[0], negative_attention_mask=negatives[1])
        >>> output.logits_per_image.shape, output.negative_text_embeds.shape
        (torch.Size([2, 2]), torch.Size([2, 1, 32]))
    """

    config: ImcCmrCLIPConfig
    config_class = ImcCmrCLIPConfig

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        negative_input_ids: torch.LongTensor | None = None,
        negative_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> ImcCmrCLIPOutput:
        """Embed images, captions and, if given, hard negatives.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                Captions.
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`):
                Images.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(1, length)`, *optional*):
                Positions of the caption tokens.
            return_loss (`bool`, *optional*):
                Whether to return the plain symmetric contrastive loss, as in `CLIPModel`; it needs as many images as
                captions and knows nothing of hard negatives.
            interpolate_pos_encoding (`bool`, defaults to `False`):
                Whether to fit the position embeddings to images of another size.
            negative_input_ids (`torch.LongTensor` of shape `(texts, negatives, negative_length)`, *optional*):
                Hard negatives of each caption. `negative_length` need not be `length`.
            negative_attention_mask (`torch.Tensor` of shape `(texts, negatives, negative_length)`, *optional*):
                1 for tokens, 0 for padding. A slot of nothing but 0 has no hard negative: it is not computed, its
                embedding is 0 and no gradient flows into it.
            **kwargs:
                Further arguments of `CLIPModel.forward`, such as `output_hidden_states` (of images and captions).

        Returns:
            [`ImcCmrCLIPOutput`], or a tuple of its entries with `return_dict=False`.

        Raises:
            ValueError: if captions or images are missing, or shapes do not fit.
        """
        if input_ids is None or pixel_values is None:
            missing = "input_ids" if input_ids is None else "pixel_values"
            raise ValueError(
                f"{missing} is None: forward compares images with captions and needs both; use get_image_features or "
                "get_text_features to embed one of them"
            )
        self._check_negatives(input_ids, negative_input_ids, negative_attention_mask)
        outputs = super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            return_loss=return_loss,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
            **kwargs,
        )
        negatives = None
        if negative_input_ids is not None:
            negatives = self._embed_negatives(negative_input_ids, negative_attention_mask, outputs.text_embeds)
        return ImcCmrCLIPOutput(**outputs, negative_text_embeds=negatives)

    def _embed_negatives(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, text_embeds: torch.Tensor
    ) -> torch.Tensor:
        slots, size = input_ids.shape[:2], text_embeds.shape[-1]
        input_ids = input_ids.flatten(0, 1)
        present = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if attention_mask is not None:
            attention_mask = attention_mask.flatten(0, 1)
            present = attention_mask.bool().any(dim=1)
            attention_mask = attention_mask[present]
        embeds = text_embeds.new_zeros(len(input_ids), size)
        if present.any():
            found = self.get_text_features(input_ids[present], attention_mask, return_dict=True).pooler_output
            found = found / found.pow(2).sum(dim=-1, keepdim=True).pow(0.5)  # rounds as CLIP's captions do
            embeds = embeds.masked_scatter(present[:, None], found.to(embeds.dtype))
        return embeds.unflatten(0, slots)

    @staticmethod
    def _check_negatives(
        input_ids: torch.Tensor, negatives: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> None:
        if negatives is None:
            if attention_mask is not None:
                raise ValueError(
                    "negative_attention_mask was given without negative_input_ids; pass both, or only the second"
                )
            return
        if negatives.ndim != 3 or len(negatives) != len(input_ids):
            raise ValueError(
                f"negative_input_ids must have shape ({len(input_ids)}, negatives, length), got "
                f"{tuple(negatives.shape)}"
            )
        if attention_mask is not None and attention_mask.shape != negatives.shape:
            raise ValueError(
                f"negative_attention_mask must have the shape of negative_input_ids, {tuple(negatives.shape)}, got "
                f"{tuple(attention_mask.shape)}"
            )


__all__ = ["ImcCmrCLIPModel", "ImcCmrCLIPOutput"]
