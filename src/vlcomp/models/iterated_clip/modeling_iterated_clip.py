"""Iterated-CLIP: two CLIP towers whose images and texts are sparse mixtures of the codes of one codebook."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput, CLIPPreTrainedModel, CLIPTextModel, CLIPVisionModel
from transformers.utils import ModelOutput, can_return_tuple

from .codebook_iterated_clip import IteratedCLIPCodebook, IteratedCLIPLinear, IteratedCLIPQueryHead
from .configuration_iterated_clip import IteratedCLIPConfig

# The parts of each agent; the codebook and the logit scale belong to neither.
AGENTS = {"language": ("text_model", "text_projection"), "vision": ("vision_model", "visual_projection")}
# For this end token CLIP's text tower pools at the highest token id: the value of OpenAI's old configurations.
_LEGACY_EOS = 2


@dataclass
class IteratedCLIPFeatures(BaseModelOutputWithPooling):
    """Output of `get_image_features` and `get_text_features`: that of a tower, and the mixture of codes.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch, length, width)`):
            Last hidden states of the tower.
        pooler_output (`torch.Tensor` of shape `(batch, projection_dim)`):
            The embedding, not normalised.
        hidden_states, attentions (`tuple[torch.Tensor]`, *optional*):
            As in `CLIPModel`.
        code_weights (`torch.Tensor` of shape `(batch, codebook_size)`, *optional*):
            Share of each code in the embedding; not negative, rows sum to 1. `None` without a codebook.
    """

    code_weights: torch.Tensor | None = None


@dataclass
class IteratedCLIPOutput(CLIPOutput):
    """Output of [`IteratedCLIPModel`]: that of a CLIP, and the mixtures of codes.

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
        text_model_output ([`IteratedCLIPFeatures`]):
            Output of `get_text_features`.
        vision_model_output ([`IteratedCLIPFeatures`]):
            Output of `get_image_features`.
        image_code_weights (`torch.Tensor` of shape `(images, codebook_size)`, *optional*):
            Share of each code in each image; `None` without a codebook.
        text_code_weights (`torch.Tensor` of shape `(texts, codebook_size)`, *optional*):
            Share of each code in each text; `None` without a codebook.
    """

    image_code_weights: torch.Tensor | None = None
    text_code_weights: torch.Tensor | None = None


@dataclass
class TokenCodesOutput(ModelOutput):
    """Which codes each token activates.

    A code's score is the maximum over the tokens, so each active code is owed to one token.

    Args:
        codes (`torch.LongTensor` of shape `(batch, tokens, top_k)`):
            Codes that the token activates, the strongest first; -1 where it activates fewer.
        weights (`torch.Tensor` of shape `(batch, tokens, top_k)`):
            Their shares in the embedding of the whole image or text; 0 where there is no code.
        token_mask (`torch.BoolTensor` of shape `(batch, tokens)`):
            Which tokens count: all patches, and text tokens up to the end token.
        code_weights (`torch.Tensor` of shape `(batch, codebook_size)`):
            Share of each code in the embedding.
        code_tokens (`torch.LongTensor` of shape `(batch, codebook_size)`):
            The token that scores highest for each code, active or not.
    """

    codes: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    token_mask: torch.Tensor | None = None
    code_weights: torch.Tensor | None = None
    code_tokens: torch.Tensor | None = None


class IteratedCLIPModel(CLIPPreTrainedModel):
    """Two CLIP towers that meet in a codebook, to be trained by generations.

    Every patch (not the class token) and every text token up to the end token gives a query; the score of a code is
    the maximum over the tokens of `query . code / sqrt(size) / temperature`; sparsemax turns the scores into shares;
    the embedding is that mixture of codes. With `use_codebook=False` heads and embeddings are those of `CLIPModel`,
    under the same names.

    In the method's terms a tower and its head (`text_model` and `text_projection`, `vision_model` and
    `visual_projection`) are an *agent*; [`~IteratedCLIPModel.spawn_agent`] replaces one. `IteratedCLIPTrainer` trains
    by generations.

    Args:
        config ([`IteratedCLIPConfig`]):
            Sizes of towers and codebook.

    Reference:
        Zheng, Zhang, Kembhavi, Krishna 2024 (CVPR, arXiv 2404.02145), Section 3.

    Deviations:
        Padding is left out of the maximum, where the public code floors the maximum of texts at 0. Query heads start
        with weights of standard deviation `fan_in ** -0.5` and zero biases, so that scores start with unit variance;
        the paper does not specify it. The towers are those of transformers; with a codebook the vision tower's last
        norm, which only the class token passes, is left out.

    Example:
        >>> import torch
        >>> from vlcomp.models.iterated_clip import IteratedCLIPConfig, IteratedCLIPModel
        >>> from vlcomp.testing import tiny_clip, tiny_images, tiny_processor
        >>> towers = {name: getattr(tiny_clip().config, name) for name in ("text_config", "vision_config")}
        >>> config = IteratedCLIPConfig(**towers, projection_dim=32, codebook_size=64, temperature=1.0)
        >>> model = IteratedCLIPModel(config).eval()
        >>> inputs = tiny_processor()(
        ...     text=["a red cup", "a blue star"], images=tiny_images(2), padding=True, return_tensors="pt"
        ... )
        >>> with torch.no_grad():
        ...     output = model(**inputs)
        >>> output.logits_per_image.shape, output.text_code_weights.shape
        (torch.Size([2, 2]), torch.Size([2, 64]))
        >>> found = model.token_codes(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], top_k=3)
        >>> found.codes.shape[0], found.codes.shape[2]
        (2, 3)
    """

    config: IteratedCLIPConfig
    config_class = IteratedCLIPConfig

    def __init__(self, config: IteratedCLIPConfig) -> None:
        super().__init__(config)
        text, vision, size = config.text_config, config.vision_config, config.projection_dim
        self.text_model = CLIPTextModel._from_config(text)
        self.vision_model = CLIPVisionModel._from_config(vision)
        if config.use_codebook:
            self.vision_model.post_layernorm = nn.Identity()  # nothing but the class token passes it
            self.visual_projection = IteratedCLIPQueryHead(vision.hidden_size, size, vision.layer_norm_eps)
            self.text_projection = IteratedCLIPQueryHead(text.hidden_size, size, text.layer_norm_eps)
            self.codebook = IteratedCLIPCodebook(config)
        else:
            self.visual_projection = IteratedCLIPLinear(vision.hidden_size, size, bias=False)
            self.text_projection = IteratedCLIPLinear(text.hidden_size, size, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, IteratedCLIPLinear):
            init.normal_(module.weight, std=module.in_features**-0.5 * self.config.initializer_factor)
        elif isinstance(module, IteratedCLIPCodebook):
            init.normal_(module.weight, std=self.config.codebook_initializer_std)
        elif isinstance(module, IteratedCLIPModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> IteratedCLIPFeatures:
        """Embed texts.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                Texts, each with an end token.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding. What follows the first end token does not count either way.
            position_ids (`torch.LongTensor` of shape `(1, length)`, *optional*):
                Positions of the tokens.
            **kwargs:
                Further arguments of `CLIPTextModel.forward`, such as `output_hidden_states`.

        Returns:
            [`IteratedCLIPFeatures`], whose `pooler_output` is the embedding, not normalised.

        Raises:
            ValueError: if a text has no token.
        """
        outputs = self.text_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            return_dict=True,
            **kwargs,
        )
        if not self.config.use_codebook:
            return IteratedCLIPFeatures(**{**outputs, "pooler_output": self.text_projection(outputs.pooler_output)})
        queries = self.text_projection(outputs.last_hidden_state)
        embeds, weights = self.codebook(queries, self._text_tokens(input_ids, attention_mask))
        return IteratedCLIPFeatures(**{**outputs, "pooler_output": embeds}, code_weights=weights)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False, **kwargs: Any
    ) -> IteratedCLIPFeatures:
        """Embed images.

        Args:
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`):
                Images.
            interpolate_pos_encoding (`bool`, defaults to `False`):
                Whether to fit the position embeddings to images of another size.
            **kwargs:
                Further arguments of `CLIPVisionModel.forward`, such as `output_hidden_states`.

        Returns:
            [`IteratedCLIPFeatures`], whose `pooler_output` is the embedding, not normalised.
        """
        outputs = self.vision_model(
            pixel_values=pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
            **kwargs,
        )
        if not self.config.use_codebook:
            return IteratedCLIPFeatures(**{**outputs, "pooler_output": self.visual_projection(outputs.pooler_output)})
        queries = self.visual_projection(outputs.last_hidden_state[:, 1:])
        embeds, weights = self.codebook(queries, _all_tokens(queries))
        return IteratedCLIPFeatures(**{**outputs, "pooler_output": embeds}, code_weights=weights)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Any,
    ) -> IteratedCLIPOutput:
        """Embed images and texts and compare them.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                Texts, each with an end token.
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`):
                Images.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(1, length)`, *optional*):
                Positions of the tokens.
            return_loss (`bool`, *optional*):
                Whether to return the symmetric contrastive loss; it needs as many images as texts.
            interpolate_pos_encoding (`bool`, defaults to `False`):
                Whether to fit the position embeddings to images of another size.
            **kwargs:
                Further arguments of both towers, such as `output_hidden_states`.

        Returns:
            [`IteratedCLIPOutput`], or a tuple of its entries with `return_dict=False`.

        Raises:
            ValueError: if texts or images are missing, a text has no token, or the loss is asked for with unequal
                numbers.
        """
        if input_ids is None or pixel_values is None:
            missing = "input_ids" if input_ids is None else "pixel_values"
            raise ValueError(
                f"{missing} is None: forward compares images with captions and needs both; use get_image_features or "
                "get_text_features to embed one of them"
            )
        if return_loss and len(input_ids) != len(pixel_values):
            raise ValueError(
                f"return_loss=True compares each image with its own text, but there are {len(pixel_values)} images "
                f"and {len(input_ids)} texts"
            )
        kwargs.pop("return_dict", None)
        image = self.get_image_features(pixel_values, interpolate_pos_encoding, return_dict=True, **kwargs)
        text = self.get_text_features(input_ids, attention_mask, position_ids, return_dict=True, **kwargs)
        image_embeds, text_embeds = _normalised(image.pooler_output), _normalised(text.pooler_output)
        # The same reason as for the scores: cosines of a codebook may differ in the fourth decimal place.
        with torch.autocast(device_type=image_embeds.device.type, enabled=False):
            logits = (text_embeds @ image_embeds.T.to(text_embeds.device)) * self.logit_scale.exp()
            loss = None
            if return_loss:
                target = torch.arange(len(logits), device=logits.device)
                loss = nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)
        return IteratedCLIPOutput(
            loss=None if loss is None else loss / 2,
            logits_per_image=logits.T,
            logits_per_text=logits,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text,
            vision_model_output=image,
            image_code_weights=image.code_weights,
            text_code_weights=text.code_weights,
        )

    @torch.no_grad()
    def token_codes(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        top_k: int = 5,
    ) -> TokenCodesOutput:
        """Tell which codes each patch of images, or each token of texts, activates.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`, *optional*):
                Texts; or pass `pixel_values`.
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`, *optional*):
                Images; or pass `input_ids`. Their tokens are the patches, row by row from the top left.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(1, length)`, *optional*):
                Positions of the tokens.
            interpolate_pos_encoding (`bool`, defaults to `False`):
                Whether to fit the position embeddings to images of another size.
            top_k (`int`, defaults to 5):
                At most this many codes of each token.

        Returns:
            [`TokenCodesOutput`]

        Raises:
            ValueError: if the model has no codebook, not exactly one of images and texts is given, or `top_k` is out
                of range.
        """
        if not self.config.use_codebook:
            raise ValueError("use_codebook is False: a model without a codebook has no codes to tell of")
        if (input_ids is None) == (pixel_values is None):
            both = "both" if input_ids is not None else "neither"
            raise ValueError(f"token_codes takes either input_ids or pixel_values, and got {both}")
        if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= self.config.codebook_size:
            raise ValueError(
                f"top_k={top_k!r} must lie between 1 and the codebook_size of {self.config.codebook_size}"
            )
        if input_ids is not None:
            hidden = self.text_model(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids
            ).last_hidden_state
            queries, mask = self.text_projection(hidden), self._text_tokens(input_ids, attention_mask)
        else:
            hidden = self.vision_model(
                pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding
            ).last_hidden_state
            queries = self.visual_projection(hidden[:, 1:])
            mask = _all_tokens(queries)
        _, weights = self.codebook(queries, mask)
        winners = self.codebook.winners(queries, mask)
        found = [
            _strongest(each, tokens, queries.shape[1], top_k) for each, tokens in zip(weights, winners, strict=True)
        ]
        return TokenCodesOutput(
            codes=torch.stack([codes for codes, _ in found]),
            weights=torch.stack([shares for _, shares in found]),
            token_mask=mask,
            code_weights=weights,
            code_tokens=winners,
        )

    @torch.no_grad()
    def spawn_agent(self, agent: str, seed: int) -> list[nn.Parameter]:
        """Replace an agent (a tower and its head) by a new one, drawn as at construction.

        The weights are those of `IteratedCLIPModel(config)` after `torch.manual_seed(seed)`, on any device and
        process. Nothing else of the model changes, and no global random state does.

        Args:
            agent (`str`):
                `"language"` (`text_model` and `text_projection`) or `"vision"` (`vision_model` and
                `visual_projection`).
            seed (`int`):
                Seed of the draw, 0 or more.

        Returns:
            `list[nn.Parameter]`: the parameters that were drawn anew, whose optimiser state is now stale.

        Raises:
            ValueError: for an unknown agent or a seed that is not a whole number.
        """
        if agent not in AGENTS:
            raise ValueError(f"agent={agent!r} is not one of {', '.join(map(repr, AGENTS))}")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ValueError(f"seed={seed!r} must be a whole number between 0 and 2**63 - 1")
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the accelerators too
            fresh = type(self)(copy.deepcopy(self.config))
        drawn = []
        for name in AGENTS[agent]:
            old, new = getattr(self, name), getattr(fresh, name)
            for target, source in zip(old.buffers(), new.buffers(), strict=True):
                target.copy_(source)
            for target, source in zip(old.parameters(), new.parameters(), strict=True):
                target.copy_(source)
                drawn.append(target)
        return drawn

    def _text_tokens(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Which text tokens count: those up to the end token at which CLIP pools, [texts, length]."""
        end_token = self.text_model.eos_token_id
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        if end_token == _LEGACY_EOS:
            last = input_ids.argmax(dim=1, keepdim=True)
        else:
            ends = input_ids == end_token
            last = ends.int().argmax(dim=1, keepdim=True)
            # Without an end token nothing but the attention mask tells tokens from padding.
            last = torch.where(ends.any(dim=1, keepdim=True), last, input_ids.shape[1])
        counts = positions <= last
        if attention_mask is not None:
            counts = counts & attention_mask.bool()
            if not torch.compiler.is_compiling() and not counts.any(dim=1).all():
                row = int((~counts.any(dim=1)).nonzero()[0])
                raise ValueError(f"attention_mask leaves the text in row {row} without a token")
        return counts


def _all_tokens(queries: torch.Tensor) -> torch.Tensor:
    return torch.ones(queries.shape[:2], dtype=torch.bool, device=queries.device)


def _normalised(embeds: torch.Tensor) -> torch.Tensor:
    return embeds / embeds.pow(2).sum(dim=-1, keepdim=True).pow(0.5)  # rounds as CLIP does


def _strongest(
    weights: torch.Tensor, winners: torch.Tensor, tokens: int, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The codes of each token of one image or text, and their weights, [tokens, top_k]."""
    owned = weights.new_zeros(tokens, len(weights))
    owned[winners, torch.arange(len(weights), device=weights.device)] = weights
    shares, codes = owned.topk(top_k, dim=1)
    return codes.masked_fill(shares == 0, -1), shares


__all__ = ["IteratedCLIPModel", "IteratedCLIPOutput"]
