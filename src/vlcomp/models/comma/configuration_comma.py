"""Configuration of COMMA and of the prompt-learning methods it is compared with."""

import math
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CLIPConfig

VARIANTS = ("zero-shot", "coop", "deep-text", "deep-vision", "independent", "maple", "comma")
CTX_INITS = ("template", "random")
# Fields that say what the prompts are and how they are used.
PROMPT_FIELDS = (
    "prompt_variant",
    "n_ctx",
    "prompt_depth",
    "template",
    "knowledge_template",
    "ctx_init",
    "prompt_std",
    "generator_mlp",
    "share_generator",
    "detach_generator",
    "kd_layers",
)
_DEFAULT_DEPTH = 9


def check_template(name: str, template: str) -> None:
    """Refuse a template that has not exactly one place for the class name.

    Args:
        name (`str`):
            The argument.
        template (`str`):
            What was given for it.

    Raises:
        ValueError: names the argument and the value.
    """
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ValueError(
            f"{name}={template!r} needs one placeholder {{}} for the class name, as in 'a photo of a {{}}.'"
        )


@strict
class CommaConfig(CLIPConfig):
    """Configuration of a [`CommaModel`]: that of the frozen CLIP inside, and which prompts it has.

    `prompt_variant` chooses what is learned, all else being equal:

    | `prompt_variant` | text prompts | vision prompts |
    |---|---|---|
    | `"zero-shot"` | none | none |
    | `"coop"` | at the input | none |
    | `"deep-text"` | `prompt_depth` layers | none |
    | `"deep-vision"` | none | `prompt_depth` layers |
    | `"independent"` | `prompt_depth` layers | `prompt_depth` layers, parameters of their own |
    | `"maple"` | `prompt_depth` layers | a linear map of the text prompts of the same layer |
    | `"comma"` | `prompt_depth` layers | generated from the prompts of both branches of the layer before |

    Args:
        prompt_variant (`str`, defaults to `"comma"`):
            One of the above.
        n_ctx (`int`, defaults to 2):
            Learned vectors per layer and branch.
        prompt_depth (`int`, *optional*):
            How many layers have prompts. By default 9 (the paper's for base-to-novel; 3 for the transfer protocols),
            or all of a tower that has fewer blocks; always 1 for `"coop"` and 0 for `"zero-shot"`.
        template (`str`, defaults to `"a photo of a {}."`):
            Text of a class. The text prompts of the first layer take the place of its first `n_ctx` words.
        knowledge_template (`str`, *optional*):
            Hand-crafted template that the frozen CLIP reads for the knowledge term, such as `"a photo of a {}, a type
            of pet."`; `template` if not given.
        ctx_init (`str`, defaults to `"template"`):
            Where the first text prompts start: `"template"`, at the embeddings of the words whose place they take, or
            `"random"`, as the deeper ones do.
        prompt_std (`float`, defaults to 0.02):
            Standard deviation of prompts at the start.
        generator_mlp (`bool`, defaults to `True`):
            Whether a LayerNorm and a bottleneck MLP (a quarter of the width, ReLU) follow each step of the recursion,
            as in the authors' code; `False` is the formula alone. Only for `"comma"`.
        share_generator (`bool`, defaults to `True`):
            Whether all layers share one projection, LayerNorm and MLP (0.7 M parameters at ViT-B/16) or each has its
            own (5.5 M). Not specified by the paper. Only for `"comma"`.
        detach_generator (`bool`, defaults to `False`):
            Whether to cut the gradient of every generated prompt after the first layer, so that the generator stays at
            its random start, as in the authors' code. Only for `"comma"`.
        kd_layers (`int`, defaults to 1):
            How many of the last text blocks the knowledge term compares. Not specified by the paper; 1 in the authors'
            code.
        kd_weight (`float`, *optional*):
            Weight the knowledge term had in training. The trainer writes it; `None` says that the model has not been
            trained with it.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the generator's weights at the start.
        **kwargs:
            Arguments of `CLIPConfig` (`text_config`, `vision_config`, `projection_dim`, ...).

    Raises:
        ValueError: for values that do not fit each other or the towers. Assigning a value of the wrong type raises at
            once; relations between fields are also checked when a model is built and when the configuration is saved.

    Reference:
        Hu, Gao, Liu, Pun, Feng 2024 (AAAI, arXiv 2401.00268). Baselines: Zhou et al. 2022 (CoOp, arXiv 2109.01134),
        Khattak et al. 2023 (MaPLe, arXiv 2210.03117).

    Example:
        >>> from vlcomp.models.comma import CommaConfig
        >>> config = CommaConfig(prompt_variant="comma", prompt_depth=3)
        >>> config.text_prompt_depth, config.vision_prompt_depth, config.learned_template
        (3, 3, 'of a {}.')
    """

    model_type = "comma"

    prompt_variant: str = "comma"
    n_ctx: int = 2
    prompt_depth: int | None = None
    template: str = "a photo of a {}."
    knowledge_template: str | None = None
    ctx_init: str = "template"
    prompt_std: float | int = 0.02
    generator_mlp: bool = True
    share_generator: bool = True
    detach_generator: bool = False
    kd_layers: int = 1
    kd_weight: float | int | None = None
    initializer_range: float | int = 0.02

    @property
    def text_prompt_depth(self) -> int:
        """How many layers of the text tower have prompts."""
        if self.prompt_variant in ("zero-shot", "deep-vision"):
            return 0
        return 1 if self.prompt_variant == "coop" else self._depth()

    @property
    def vision_prompt_depth(self) -> int:
        """How many layers of the vision tower have prompts."""
        return 0 if self.prompt_variant in ("zero-shot", "coop", "deep-text") else self._depth()

    @property
    def learned_template(self) -> str:
        """What is left of `template` beside the prompts: the text that stands after them."""
        return self.split_template(self.template)[1]

    @property
    def max_text_length(self) -> int:
        """Tokens that a text may have, start and end included, so that it and the prompts fit the positions."""
        return self.text_config.max_position_embeddings - (self.n_ctx if self.text_prompt_depth else 0)

    def split_template(self, template: str) -> tuple[list[str], str]:
        """Divide a template into the words whose place the text prompts take, and the rest.

        Args:
            template (`str`):
                With one `{}`.

        Returns:
            `tuple[list[str], str]`: the first `n_ctx` words, fewer if the class name comes sooner, and what follows
            them. Without text prompts, no words and the whole template.

        Raises:
            ValueError: if there is not exactly one `{}`.
        """
        check_template("template", template)
        before, _ = template.split("{}")
        # A word that touches the class name, as in "non-{}", stays with it.
        words = before.split() if not before or before[-1].isspace() else before.split()[:-1]
        words = words[: self.n_ctx] if self.text_prompt_depth else []
        return words, template.split(maxsplit=len(words))[-1] if words else template

    def _depth(self) -> int:
        if self.prompt_depth is not None:
            return self.prompt_depth
        return min([_DEFAULT_DEPTH, *(tower.num_hidden_layers for _, tower in self._prompted_towers())])

    def _prompted_towers(self) -> list[tuple[str, Any]]:
        towers = []
        if self.prompt_variant != "deep-vision":
            towers.append(("text", self.text_config))
        if self.prompt_variant != "deep-text":
            towers.append(("vision", self.vision_config))
        return towers

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

    def validate_prompts(self) -> None:
        """Check the settings of the prompts against each other and against the towers."""
        for name, allowed in (("prompt_variant", VARIANTS), ("ctx_init", CTX_INITS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}")
        if self.n_ctx < 1:
            raise ValueError(
                f"n_ctx={self.n_ctx} must be at least 1; for no prompts at all pass prompt_variant='zero-shot'"
            )
        if not 0 <= self.prompt_std < math.inf:
            raise ValueError(f"prompt_std={self.prompt_std} must be finite and not negative")
        if self.kd_weight is not None and not 0 <= self.kd_weight < math.inf:
            raise ValueError(f"kd_weight={self.kd_weight} must be finite and not negative")
        if self.detach_generator and self.prompt_variant != "comma":
            raise ValueError(
                f"detach_generator=True, but prompt_variant={self.prompt_variant!r} has no generator; only 'comma' has"
            )
        for name in ("template", "knowledge_template"):
            if getattr(self, name) is not None:
                check_template(name, getattr(self, name))
        self._check_depth()
        blocks = self.text_config.num_hidden_layers
        if not 1 <= self.kd_layers <= blocks:
            raise ValueError(
                f"kd_layers={self.kd_layers} must be between 1 and {blocks}, the blocks of the text tower"
            )
        if self.max_text_length < 3:
            raise ValueError(
                f"n_ctx={self.n_ctx} leaves no room for a text in {self.text_config.max_position_embeddings} positions"
            )

    def _check_depth(self) -> None:
        depth, fixed = self.prompt_depth, {"zero-shot": 0, "coop": 1}.get(self.prompt_variant)
        if depth is None:
            return
        if fixed is not None:
            if depth != fixed:
                raise ValueError(
                    f"prompt_depth={depth}, but prompt_variant={self.prompt_variant!r} has prompts in {fixed} "
                    "layers; leave prompt_depth out"
                )
            return
        if depth < 1:
            raise ValueError(
                f"prompt_depth={depth} must be at least 1; for no prompts pass prompt_variant='zero-shot'"
            )
        for name, tower in self._prompted_towers():
            if depth > tower.num_hidden_layers:
                raise ValueError(
                    f"prompt_depth={depth} is beyond the {tower.num_hidden_layers} blocks of the {name} tower"
                )


__all__ = ["CommaConfig"]
