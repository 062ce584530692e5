"""The prompts of both branches, the generator of vision prompts, and the encoder that takes prompts in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.clip.modeling_clip import CLIPEncoder

from .configuration_comma import CommaConfig


class CommaBlock(nn.Module):
    """What follows a step of the recursion: LayerNorm and a bottleneck MLP.

    Args:
        width (`int`):
            Width of the vision tower.
    """

    def __init__(self, width: int):
        super().__init__()
        narrow = max(width // 4, 1)
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, narrow)
        self.up = nn.Linear(narrow, width)

    def forward(self, prompts: torch.Tensor) -> torch.Tensor:
        """Transform prompts.

        Args:
            prompts (`torch.Tensor` of shape `(n_ctx, width)`):
                Attended prompts.

        Returns:
            `torch.Tensor`: of the same shape.
        """
        return self.up(self.down(self.norm(prompts)).relu())


class CommaPrompts(nn.Module):
    """All that is learned: text prompts, and what vision prompts are made from.

    With text prompts `T_i` and vision prompts `V_i` of layer `i`, variant `"comma"` computes

    - `V_0 = project(T_0)`
    - `V_i = block(softmax(V_{i-1} K^T / sqrt(width)) K)` with `K = project(T_{i-1})`

    on the parameters and generated prompts, not on hidden states of the towers.

    Args:
        config ([`CommaConfig`]):
            Which prompts there are.

    Reference:
        Hu et al. 2024 (arXiv 2401.00268), vision prompts from the prompts of both branches.
    """

    def __init__(self, config: CommaConfig):
        super().__init__()
        self.config = config
        text_width, vision_width = config.text_config.hidden_size, config.vision_config.hidden_size
        text_depth, vision_depth = config.text_prompt_depth, config.vision_prompt_depth
        self.text = _free(text_depth, config.n_ctx, text_width)
        own = config.prompt_variant in ("deep-vision", "independent")
        self.vision = _free(vision_depth if own else 0, config.n_ctx, vision_width)
        projections, blocks = 0, 0
        if config.prompt_variant == "maple":
            projections = vision_depth
        elif config.prompt_variant == "comma":
            steps = vision_depth - 1  # the prompts of the last layer are made, but nothing is made from them
            projections = 1 if config.share_generator else max(steps, 1)
            blocks = min(steps, 1) if config.share_generator else steps
            blocks = blocks if config.generator_mlp else 0
        self.projections = nn.ModuleList(nn.Linear(text_width, vision_width) for _ in range(projections))
        self.blocks = nn.ModuleList(CommaBlock(vision_width) for _ in range(blocks))

    def vision_prompts(self) -> list[torch.Tensor]:
        """Make the vision prompts of every prompted layer.

        Returns:
            `list[torch.Tensor]`: one of shape `(n_ctx, vision width)` for each layer; empty without vision prompts.
        """
        if len(self.vision):
            return list(self.vision)
        if not len(self.projections):
            return []
        if self.config.prompt_variant == "maple":
            return [project(prompt) for project, prompt in zip(self.projections, self.text, strict=True)]
        shared, detached = self.config.share_generator, self.config.detach_generator
        made = [self.projections[0](self.text[0])]
        for step in range(self.config.vision_prompt_depth - 1):
            keys = self.projections[0 if shared else step](self.text[step])
            scores = made[-1] @ keys.T / keys.shape[-1] ** 0.5
            prompt = scores.softmax(dim=-1).to(keys.dtype) @ keys
            if len(self.blocks):
                prompt = self.blocks[0 if shared else step](prompt)
            made.append(prompt.detach() if detached else prompt)
        return made


def _free(depth: int, n_ctx: int, width: int) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(torch.zeros(n_ctx, width)) for _ in range(depth))


@dataclass(eq=False)
class Placement:
    """Prompts on their way into an encoder.

    Args:
        prompts (`Sequence[torch.Tensor]`):
            Of shape `(n_ctx, width)`, for each of the first layers what stands there when the layer begins.
        append (`bool`):
            Whether they stand at the end, where the first are appended to the sequence (vision), or after the first
            position, where the text has kept places for them.
        used (`bool`):
            Set by the encoder: whether the prompts arrived.
    """

    prompts: Sequence[torch.Tensor]
    append: bool
    used: bool = False

    def put(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Bring the prompts of a layer into its input.

        Args:
            layer (`int`):
                Index of the layer.
            hidden (`torch.Tensor` of shape `(batch, length, width)`):
                Input of the layer.

        Returns:
            `torch.Tensor`: with the prompts in their places, longer by `n_ctx` if they were appended just now.
        """
        if layer >= len(self.prompts):
            return hidden
        prompt = self.prompts[layer].to(hidden.dtype)
        count = len(prompt)
        prompt = prompt.expand(len(hidden), -1, -1)
        if self.append:
            return torch.cat([hidden if layer == 0 else hidden[:, :-count], prompt], dim=1)
        return torch.cat([hidden[:, :1], prompt, hidden[:, 1 + count :]], dim=1)


class PromptedEncoder(CLIPEncoder):
    """CLIP's encoder, layers and all, that puts prompts in before its layers where it is given any.

    Prompts enter between the layers and not by hooks in them, so that gradient checkpointing, which runs layers a
    second time, sees the same inputs.

    Args:
        encoder (`CLIPEncoder`):
            Whose layers to take over.
    """

    def __init__(self, encoder: CLIPEncoder):
        nn.Module.__init__(self)
        self.config = encoder.config
        self.layers = encoder.layers
        self.gradient_checkpointing = False

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        prompts: Placement | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode a sequence.

        Args:
            inputs_embeds (`torch.Tensor` of shape `(batch, length, width)`):
                Embedded tokens or patches.
            attention_mask (`torch.Tensor`, *optional*):
                As in `CLIPEncoder`.
            prompts ([`Placement`], *optional*):
                Prompts; without them this is `CLIPEncoder`.
            **kwargs:
                Passed to the layers.

        Returns:
            `BaseModelOutput`
        """
        if prompts is None:
            return super().forward(inputs_embeds, attention_mask, **kwargs)
        hidden = inputs_embeds
        for index, layer in enumerate(self.layers):
            hidden = layer(prompts.put(index, hidden), attention_mask, **kwargs)
        prompts.used = True
        return BaseModelOutput(last_hidden_state=hidden)


__all__ = ["CommaPrompts", "PromptedEncoder"]
