"""What a discriminative LVLM returns."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class DiscriminativeLVLMOutput(ModelOutput):
    """Output of [`DiscriminativeLVLMModel.forward`].

    Args:
        loss (`torch.Tensor`, *optional*):
            Scalar, the symmetric contrastive loss; with `return_loss=True`.
        logits_per_image (`torch.Tensor` of shape `(images, texts)`, *optional*):
            Cosines times the logit scale.
        logits_per_text (`torch.Tensor` of shape `(texts, images)`, *optional*):
            The same, transposed.
        text_embeds (`torch.Tensor` of shape `(texts, hidden_size)`, *optional*):
            L2-normalised text embeddings.
        image_embeds (`torch.Tensor` of shape `(images, hidden_size)`):
            L2-normalised image embeddings.
        caption_hidden_states (`torch.Tensor` of shape `(tokens, hidden_size)`, *optional*):
            Final hidden states that predict the tokens of `caption_input_ids`, padding left out.
        caption_labels (`torch.LongTensor` of shape `(tokens,)`, *optional*):
            Those tokens, and the end of each caption.
        caption_rows (`torch.LongTensor` of shape `(tokens,)`, *optional*):
            The image that each belongs to.
    """

    loss: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    caption_hidden_states: torch.Tensor | None = None
    caption_labels: torch.Tensor | None = None
    caption_rows: torch.Tensor | None = None


@dataclass
class CaptionedImageOutput(ModelOutput):
    """One pass over [image, prompt, caption].

    Args:
        pooler_output (`torch.Tensor` of shape `(images, hidden_size)`):
            Image embeddings, not normalised.
        caption_hidden_states (`torch.Tensor` of shape `(tokens, hidden_size)`):
            Final hidden states that predict the tokens of the captions, padding left out.
        caption_labels (`torch.LongTensor` of shape `(tokens,)`):
            Those tokens, and the end of each caption.
        caption_rows (`torch.LongTensor` of shape `(tokens,)`):
            The image that each belongs to.
    """

    pooler_output: torch.Tensor | None = None
    caption_hidden_states: torch.Tensor | None = None
    caption_labels: torch.Tensor | None = None
    caption_rows: torch.Tensor | None = None


__all__ = ["CaptionedImageOutput", "DiscriminativeLVLMOutput"]
