"""Models written with torch alone, whose parameters have the names of other projects."""

from collections import OrderedDict

import torch
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width, heads, quick, causal):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        act = QuickGELU() if quick else nn.GELU()
        inner = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=inner[0], gelu=act, c_proj=inner[1]))
        self.ln_2 = nn.LayerNorm(width)
        self.causal = causal

    def forward(self, x):
        mask = torch.full((len(x), len(x)), float("-inf")).triu(1) if self.causal else None
        inner = self.ln_1(x)
        x = x + self.attn(inner, inner, inner, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, heads, layers, quick, causal):
        super().__init__()
        self.resblocks = nn.Sequential(*[Block(width, heads, quick, causal) for _ in range(layers)])

    def forward(self, x, prompts=()):
        for index, block in enumerate(self.resblocks):
            if 0 < index < len(prompts):
                prompt = prompts[index][:, None].expand(-1, x.shape[1], -1)
                if block.causal:
                    x = torch.cat([x[:1], prompt, x[1 + len(prompt) :]])
                else:
                    x = torch.cat([x[: -len(prompt)], prompt])
            x = block(x)
        return x


class Visual(nn.Module):
    def __init__(self, size, patch, width, heads, layers, dim, quick):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((size // patch) ** 2 + 1, width))
        self.proj = nn.Parameter(torch.randn(width, dim) * width**-0.5)
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, heads, layers, quick, causal=False)
        self.ln_post = nn.LayerNorm(width)

    def dense(self, x, prompts=()):
        x = self.conv1(x).flatten(2).permute(2, 0, 1)
        x = torch.cat([self.class_embedding.expand(1, x.shape[1], -1), x]) + self.positional_embedding[:, None]
        if len(prompts):
            x = torch.cat([x, prompts[0][:, None].expand(-1, x.shape[1], -1)])
        return self.transformer(self.ln_pre(x), prompts).transpose(0, 1)

    def forward(self, x, prompts=()):
        return self.ln_post(self.dense(x, prompts)[:, 0]) @ self.proj


class OpenCLIP(nn.Module):
    """open_clip's `CLIP`; every parameter is random, also those that start at 0 or 1."""

    def __init__(self, vocab, *, size=32, patch=8, width=(32, 48), heads=(4, 4), layers=(2, 3), dim=24, quick=True,
                 positions=20, seed=0):  # fmt: skip
        super().__init__()
        torch.manual_seed(seed)
        self.positional_embedding = nn.Parameter(torch.randn(positions, width[1]))
        self.text_projection = nn.Parameter(torch.randn(width[1], dim) * width[1] ** -0.5)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))
        self.visual = Visual(size, patch, width[0], heads[0], layers[0], dim, quick)
        self.transformer = Transformer(width[1], heads[1], layers[1], quick, causal=True)
        self.token_embedding = nn.Embedding(vocab, width[1])
        self.ln_final = nn.LayerNorm(width[1])
        for name, value in self.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                nn.init.normal_(value, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
        self.eval()

    def encode_image(self, pixels, prompts=()):
        return self.visual(pixels, prompts)

    def words(self, ids, prompts=()):
        x = self.token_embedding(ids)
        if len(prompts):
            x = torch.cat([x[:, :1], prompts[0].expand(len(x), -1, -1), x[:, 1 + len(prompts[0]) :]], dim=1)
        x = (x + self.positional_embedding[: x.shape[1]]).transpose(0, 1)
        return self.ln_final(self.transformer(x, prompts).transpose(0, 1))

    def encode_text(self, ids, prompts=()):
        x = self.words(ids, prompts)
        return x[torch.arange(len(x)), ids.argmax(dim=-1)] @ self.text_projection


class QueryModel(nn.Module):
    def __init__(self, width, size):
        super().__init__()
        self.q_map = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, size), nn.GELU(), nn.LayerNorm(size), nn.Linear(size, size)
        )


class TextEncoder(nn.Module):
    """Names of the authors' text tower: a projection with bias, and everything below `encode_text`."""

    def __init__(self, clip):
        super().__init__()
        self.positional_embedding, self.token_embedding = clip.positional_embedding, clip.token_embedding
        self.transformer, self.ln_final = clip.transformer, clip.ln_final
        self.text_projection = nn.Linear(*clip.text_projection.shape)


class CodebookCLIP(nn.Module):
    """`Clip_FDT` of the Iterated-CLIP authors, with its mask token before start and end."""

    def __init__(self, vocab, codes=40, size=16, temperature=0.5, **kwargs):
        super().__init__()
        clip = OpenCLIP(vocab + 1, **kwargs)
        self.visual, self.encode_text = clip.visual, TextEncoder(clip)
        self.space_dict = nn.Parameter(torch.randn(codes, size))
        self.img_query_model = QueryModel(clip.visual.class_embedding.shape[0], size)
        self.txt_query_model = QueryModel(clip.positional_embedding.shape[1], size)
        self.logit_scale = nn.Parameter(torch.ones(1) * 3)
        self.logit_scale_sd = nn.Parameter(torch.ones(1))
        self.temperature = temperature
        self._clip = [clip]  # in a list: no second name for the parameters
        self.eval()

    def _mix(self, head, tokens, mask):
        from vlcomp.models.iterated_clip import sparsemax  # has its own tests against an optimiser

        scores = head.q_map(tokens) @ self.space_dict.T / self.space_dict.shape[1] ** 0.5 / self.temperature
        best = torch.stack([row[keep].max(dim=0).values for row, keep in zip(scores, mask, strict=True)])
        return sparsemax(best) @ self.space_dict

    def encode_images(self, pixels):
        tokens = self.visual.dense(pixels)[:, 1:]
        return self._mix(self.img_query_model, tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))

    def encode_texts(self, ids, mask):
        return self._mix(self.txt_query_model, self._clip[0].words(ids), mask.bool())


def prompt_learner(kind, clip, tokenizer, classes, template, n_ctx=2, depth=3, seed=0):
    """State of a Dassl file, and the text and vision prompts that the authors' code computes from it."""
    torch.manual_seed(seed)
    text, vision = clip.token_embedding.weight.shape[1], clip.visual.class_embedding.shape[0]
    ctx, proj = torch.randn(n_ctx, text), nn.Linear(text, vision)
    deeper = torch.randn(depth - 1, n_ctx, text)
    state = {"ctx": ctx, **{f"proj.{k}": v for k, v in proj.state_dict().items()}}
    made = [proj(ctx)]
    if kind == "maple":
        layers = nn.ModuleList(nn.Linear(text, vision) for _ in range(depth - 1))
        state |= {f"compound_prompts_text.{i}": prompt for i, prompt in enumerate(deeper)}
        state |= {f"compound_prompt_projections.{k}": v for k, v in layers.state_dict().items()}
        made += [layer(prompt) for layer, prompt in zip(layers, deeper, strict=True)]
    else:
        state |= {"compound_prompts_text": deeper, "compound_prompts_image": torch.randn(depth - 1, n_ctx, vision)}
        for index in range(depth - 1):
            mlp = nn.Sequential(nn.Linear(vision, vision // 4), nn.ReLU(), nn.Linear(vision // 4, vision))
            step = nn.ModuleDict({"fc": nn.Linear(text, vision), "ln": nn.LayerNorm(vision), "mlp": mlp})
            name = "compound_prompt_projections_image" + ("_base" if index == 0 else f".{index - 1}")
            state |= {f"{name}.{k}": v for k, v in step.state_dict().items()}
            keys = step["fc"](ctx if index == 0 else deeper[index - 1])
            mixed = torch.softmax(made[-1] @ keys.T / vision**0.5, -1) @ keys
            made.append(mlp(step["ln"](mixed)))
    rows = tokenizer([template.format(c) for c in classes], padding="max_length",
                     max_length=len(clip.positional_embedding))["input_ids"]  # fmt: skip
    embeds = clip.token_embedding(torch.tensor(rows))
    state |= {"token_prefix": embeds[:, :1], "token_suffix": embeds[:, 1 + n_ctx :]}
    full = {f"prompt_learner.{k}": v.detach() for k, v in state.items()}
    for name, value in clip.state_dict().items():
        if name.startswith("visual."):
            full["image_encoder." + name.removeprefix("visual.")] = value
        elif not name.startswith(("token_embedding", "logit_scale")):
            full["text_encoder." + name] = value
    full["logit_scale"] = clip.logit_scale.detach()
    return full, [ctx, *deeper], [prompt.detach() for prompt in made]
