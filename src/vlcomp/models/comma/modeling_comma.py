"""COMMA: a frozen CLIP with learned prompts in both towers."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from transformers import AutoTokenizer, CLIPConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput, image_text_contrastive_loss
from transformers.utils import ModelOutput, can_return_tuple, logging

from .classes_comma import ClassTexts, TextCache, check_names, class_texts, content, text_lengths, versions
from .configuration_comma import PROMPT_FIELDS, CommaConfig
from .promptfile_comma import read_prompts, read_settings, write_prompts
from .towers_comma import PromptedCLIP

_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


@dataclass
class CommaOutput(CLIPOutput):
    """Output of [`CommaModel`]: that of a CLIP, and what the knowledge term needs.

    Args:
        loss (`torch.Tensor`, *optional*):
            Scalar, the symmetric contrastive loss; with `return_loss=True`.
        logits_per_image (`torch.Tensor` of shape `(images, texts)`):
            Cosines times the logit scale.
        logits_per_text (`torch.Tensor` of shape `(texts, images)`):
            The same, transposed.
        text_embeds (`torch.Tensor` of shape `(texts, projection_dim)`):
            L2-normalised embeddings of the texts or classes.
        image_embeds (`torch.Tensor` of shape `(images, projection_dim)`):
            L2-normalised image embeddings.
        text_model_output (`BaseModelOutputWithPooling`, *optional*):
            Output of the text tower, prompts included; `None` for a set of classes.
        vision_model_output (`BaseModelOutputWithPooling`):
            Output of the vision tower, prompts included.
        text_hidden_states (`tuple[torch.Tensor]`, *optional*):
            Outputs of the last `kd_layers` text blocks, each `(texts, length, width)`, prompts included; with
            `output_text_hidden_states=True`.
        text_mask (`torch.BoolTensor` of shape `(texts, length)`, *optional*):
            Which of their positions belong to the text or the prompts, and not to padding.
    """

    text_hidden_states: tuple[torch.Tensor, ...] | None = None
    text_mask: torch.Tensor | None = None


@dataclass
class CommaClasses(ModelOutput):
    """A set of classes, encoded.

    Args:
        text_embeds (`torch.Tensor` of shape `(classes, projection_dim)`):
            L2-normalised.
        text_hidden_states (`tuple[torch.Tensor]`, *optional*):
            Outputs of the last `kd_layers` text blocks, each `(classes, length, width)`.
        text_mask (`torch.BoolTensor` of shape `(classes, length)`, *optional*):
            Which of their positions are no padding.
    """

    text_embeds: torch.Tensor | None = None
    text_hidden_states: tuple[torch.Tensor, ...] | None = None
    text_mask: torch.Tensor | None = None


class CommaModel(PromptedCLIP):
    """A frozen CLIP with learned prompts, by default those of COMMA.

    Weights of CLIP keep the names they have in `CLIPModel`; all that is learned is in `prompts`. Text prompts stand
    after the start token, so that any text keeps its words; in the text of a class ([`~CommaModel.set_classes`]) they
    take the place of the template's first words, as in training. In a zero-shot pipeline that is
    `hypothesis_template=model.config.learned_template`.

    Args:
        config ([`CommaConfig`]):
            Sizes of the towers, and which prompts there are.

    Reference:
        Hu, Gao, Liu, Pun, Feng 2024 (AAAI, arXiv 2401.00268).

    Deviations:
        The gradient reaches the generator of the vision prompts (`detach_generator=True` cuts it, as the authors' code
        does); the knowledge term compares any number of blocks and leaves padding out; texts are not padded to 77.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from vlcomp.models.comma import CommaModel
        >>> from vlcomp.testing import save_tiny_checkpoint, tiny_images, tiny_processor
        >>> model = CommaModel.from_clip(save_tiny_checkpoint(tempfile.mkdtemp())).eval()
        >>> _ = model.set_classes(["cup", "star", "dog"])
        >>> pixels = tiny_processor()(images=tiny_images(2), return_tensors="pt")["pixel_values"]
        >>> with torch.no_grad():
        ...     output = model(pixel_values=pixels)
        >>> output.logits_per_image.shape
        torch.Size([2, 3])
    """

    def __init__(self, config: CommaConfig):
        super().__init__(config)
        self._classes: tuple[ClassTexts, ClassTexts] | None = None
        self._cache = TextCache()

    @classmethod
    def from_clip(
        cls,
        name_or_path: str | PathLike,
        *,
        prompts: str | PathLike | None = None,
        tokenizer: Any = None,
        **kwargs: Any,
    ) -> "CommaModel":
        """Put prompts into a plain CLIP.

        Args:
            name_or_path (`str` or `PathLike`):
                Folder or Hub repository of a CLIP.
            prompts (`str` or `PathLike`, *optional*):
                File of [`~CommaModel.save_prompts`]: trained prompts and their settings. If not given, prompts start
                untrained.
            tokenizer (tokenizer or processor, *optional*):
                For the words that the first text prompts start at (`ctx_init="template"`); the one beside the CLIP if
                not given.
            **kwargs:
                Fields of [`CommaConfig`] (`prompt_variant`, `n_ctx`, `prompt_depth`, `template`, ...), and arguments
                of `from_pretrained` (`revision`, `dtype`, ...).

        Returns:
            [`CommaModel`]: in evaluation mode.

        Raises:
            ValueError: if it is no plain CLIP, lacks weights or a tokenizer, or settings do not fit.
        """
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        found = CLIPConfig.get_config_dict(name_or_path, **hub)[0].get("model_type")
        if found != "clip":
            hint = "; load it with CommaModel.from_pretrained" if found == cls.config_class.model_type else ""
            raise ValueError(f"name_or_path={str(name_or_path)!r} holds a model of type {found!r}, not 'clip'{hint}")
        settings = {} if prompts is None else read_settings(prompts)["settings"]
        settings.update({name: kwargs.pop(name) for name in PROMPT_FIELDS if name in kwargs})
        entries = cls.config_class.from_pretrained(name_or_path, **hub).to_dict()
        config = cls.config_class(**{**entries, **settings})
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # that the prompts are new is no news here
        try:
            model, info = cls.from_pretrained(name_or_path, config=config, output_loading_info=True, **kwargs)
        finally:
            logging.set_verbosity(verbosity)
        missing = sorted(name for name in info["missing_keys"] if not name.startswith("prompts."))
        if missing:
            raise ValueError(f"name_or_path={str(name_or_path)!r} lacks weights of CLIP: {', '.join(missing[:3])}")
        if prompts is not None:
            model.load_prompts(prompts)
        elif config.text_prompt_depth and config.ctx_init == "template":
            model._start_at_words(model._tokenizer(tokenizer))
        return model

    # -- prompts on disk

    def save_prompts(self, path: str | PathLike) -> None:
        """Write the prompts alone, and their settings.

        Args:
            path (`str` or `PathLike`):
                Safetensors file to write.
        """
        write_prompts(path, self)

    def load_prompts(self, path: str | PathLike) -> None:
        """Read prompts that [`~CommaModel.save_prompts`] wrote; the templates are taken over too.

        Args:
            path (`str` or `PathLike`):
                The file.

        Raises:
            ValueError: if it is no such file, or its prompts belong to other settings or another CLIP.
        """
        read_prompts(path, self)

    # -- classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes; `None` before [`~CommaModel.set_classes`]."""
        return None if self._classes is None else self._classes[0].names

    def set_classes(
        self,
        names: Sequence[str],
        *,
        template: str | None = None,
        knowledge_template: str | None = None,
        tokenizer: Any = None,
    ) -> "CommaModel":
        """Say which classes there are; any names, also of classes never seen in training.

        Args:
            names (`Sequence[str]`):
                Names of the classes.
            template (`str`, *optional*):
                Text of a class with one `{}`; `config.template` if not given. The text prompts stand in place of its
                first `n_ctx` words.
            knowledge_template (`str`, *optional*):
                What the frozen CLIP reads for the knowledge term; `config.knowledge_template` if not given, then
                `template`.
            tokenizer (tokenizer or processor, *optional*):
                By default the one beside the checkpoint.

        Returns:
            [`CommaModel`]: itself.

        Raises:
            ValueError: if a name is empty or comes twice, a template has not one `{}`, a text no longer fits beside
                the prompts, or there is no tokenizer.
        """
        names = check_names(names)
        tokenizer = self._tokenizer(tokenizer)
        template = self.config.template if template is None else template
        knowledge_template = knowledge_template or self.config.knowledge_template or template
        learned = self.config.split_template(template)[1]
        positions = self.config.text_config.max_position_embeddings
        self._classes = (
            class_texts(names, learned, tokenizer, self.config.max_text_length, "template"),
            class_texts(names, knowledge_template, tokenizer, positions, "knowledge_template"),
        )
        return self

    def encode_classes(
        self,
        indices: torch.Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        batch_size: int = 256,
    ) -> CommaClasses:
        """Encode the texts of the classes; once, as long as their prompts do not train or change.

        Args:
            indices (`torch.LongTensor` of shape `(n,)`, *optional*):
                Which classes; all of them if not given.
            output_hidden_states (`bool`, defaults to `False`):
                Whether to return what the knowledge term needs.
            batch_size (`int`, defaults to 256):
                Texts in one pass, where no gradient is wanted; otherwise all go in one.

        Returns:
            [`CommaClasses`]

        Raises:
            ValueError: if there are no classes.
        """
        texts = self._require_classes()[0]
        ids, mask = (
            t if indices is None else t[indices.to(t.device)] for t in (texts.input_ids, texts.attention_mask)
        )
        ids, mask = ids.to(self.device), mask.to(self.device)
        fixed = not output_hidden_states and not self._text_trains()
        state = self._text_state() if fixed else None
        known = self._cache.get("classes", state, (ids, mask)) if fixed else None
        if known is None:
            size = len(ids) if self._text_trains() else batch_size
            known = [
                self._encode_texts(ids[start : start + size], mask[start : start + size], output_hidden_states)
                for start in range(0, len(ids), size)
            ]
            known = CommaClasses(
                text_embeds=torch.cat([part.text_embeds for part in known]),
                text_hidden_states=_joined([part.text_hidden_states for part in known]),
                text_mask=torch.cat([part.text_mask for part in known]),
            )
            if fixed:
                self._cache.put("classes", state, (ids, mask), known)
        if fixed:  # a copy: what is kept must not change with what the caller does
            known = CommaClasses(text_embeds=known.text_embeds.clone(), text_mask=known.text_mask.clone())
        return known

    @torch.no_grad()
    def knowledge_targets(
        self, indices: torch.Tensor | None = None, *, batch_size: int = 256
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Hidden states of the frozen CLIP that reads the hand-crafted template; computed once per set of classes.

        Args:
            indices (`torch.LongTensor` of shape `(n,)`, *optional*):
                Which classes; all of them if not given.
            batch_size (`int`, defaults to 256):
                Texts in one pass.

        Returns:
            `tuple[tuple[torch.Tensor, ...], torch.BoolTensor]`: outputs of the last `kd_layers` text blocks, each
            `(classes, length, width)`, and which of their positions `(classes, length)` are no padding. Not to be
            changed in place.

        Raises:
            ValueError: if there are no classes.
        """
        texts = self._require_classes()[1]
        ids, mask = texts.input_ids.to(self.device), texts.attention_mask.to(self.device)
        state = (self.config.kd_layers, self._text_state(with_prompts=False))
        known = self._cache.get("targets", state, (ids, mask))
        if known is None:
            parts = []
            for start in range(0, len(ids), batch_size):
                rows = slice(start, start + batch_size)
                output = self.text_model(input_ids=ids[rows], attention_mask=mask[rows], output_hidden_states=True)
                parts.append(output.hidden_states[-self.config.kd_layers :])
            known = _joined(parts)
            self._cache.put("targets", state, (ids, mask), known)
        if torch.is_inference_mode_enabled() is False and known[0].is_inference():
            known = tuple(layer.clone() for layer in known)
        if indices is not None:
            indices = indices.to(self.device)
            known, mask = tuple(layer[indices] for layer in known), mask[indices]
        return known, mask.bool()

    # -- images against texts

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        output_text_hidden_states: bool = False,
        **kwargs: Any,
    ) -> CommaOutput:
        """Compare images with texts, or with the classes.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`, *optional*):
                Texts; the classes of [`~CommaModel.set_classes`] if not given.
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`):
                Images.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(1, length)`, *optional*):
                Positions of the tokens; only without text prompts.
            return_loss (`bool`, *optional*):
                Whether to return the plain symmetric contrastive loss, as in `CLIPModel`; it needs as many images as
                texts.
            interpolate_pos_encoding (`bool`, defaults to `False`):
                Whether to fit the position embeddings to images of another size.
            output_text_hidden_states (`bool`, defaults to `False`):
                Whether to return what the knowledge term needs.
            **kwargs:
                Further arguments of `CLIPModel.forward`, such as `output_hidden_states`.

        Returns:
            [`CommaOutput`], or a tuple of its entries with `return_dict=False`.

        Raises:
            ValueError: if images are missing, or texts and classes are, or sizes do not fit.
        """
        if pixel_values is None:
            raise ValueError(
                "pixel_values is None: forward compares images with texts; use get_text_features or encode_classes to "
                "embed texts alone"
            )
        if input_ids is None:
            texts = self.encode_classes(output_hidden_states=output_text_hidden_states)
            output = None
        else:
            texts, output = self._texts(input_ids, attention_mask, position_ids, output_text_hidden_states, kwargs)
        images = self.get_image_features(pixel_values, interpolate_pos_encoding, **kwargs)
        image_embeds = _normalised(images.pooler_output)
        logits_per_text = texts.text_embeds @ image_embeds.T.to(texts.text_embeds.device)
        logits_per_text = logits_per_text * self.logit_scale.exp().to(logits_per_text.device)
        if return_loss and len(set(logits_per_text.shape)) > 1:
            raise ValueError(
                f"return_loss=True needs as many images as texts, got {logits_per_text.shape[1]} and "
                f"{logits_per_text.shape[0]}"
            )
        return CommaOutput(
            loss=image_text_contrastive_loss(logits_per_text) if return_loss else None,
            logits_per_image=logits_per_text.T,
            logits_per_text=logits_per_text,
            text_embeds=texts.text_embeds,
            image_embeds=image_embeds,
            text_model_output=output,
            vision_model_output=images,
            text_hidden_states=texts.text_hidden_states,
            text_mask=texts.text_mask if output_text_hidden_states else None,
        )

    # -- how

    def _encode_texts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, hidden: bool) -> CommaClasses:
        given = {"output_hidden_states": True} if hidden else {}
        output = self.get_text_features(input_ids, attention_mask, return_dict=True, **given)
        return self._as_classes(output, input_ids, hidden)

    def _texts(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        hidden: bool,
        kwargs: Mapping[str, Any],
    ) -> tuple[CommaClasses, BaseModelOutputWithPooling]:
        given = {**kwargs, "output_hidden_states": True} if hidden else dict(kwargs)
        # A zero-shot pipeline passes the same labels with every image.
        inputs = (input_ids, attention_mask)
        fixed = not given and position_ids is None and not self._text_trains()
        state = self._text_state() if fixed else None
        output = self._cache.get("texts", state, inputs) if fixed else None
        if output is None:
            output = self.get_text_features(input_ids, attention_mask, position_ids, return_dict=True, **given)
            if fixed:
                self._cache.put("texts", state, inputs, output)
        if fixed:
            output = BaseModelOutputWithPooling(**{name: value.clone() for name, value in output.items()})
        return self._as_classes(output, input_ids, hidden), output

    def _as_classes(self, output: BaseModelOutputWithPooling, input_ids: torch.Tensor, hidden: bool) -> CommaClasses:
        places = self.config.n_ctx if self.config.text_prompt_depth else 0
        lengths = text_lengths(input_ids, self.config.text_config.eos_token_id) + places
        counted = torch.arange(output.last_hidden_state.shape[1], device=lengths.device)
        return CommaClasses(
            text_embeds=_normalised(output.pooler_output),
            text_hidden_states=tuple(output.hidden_states[-self.config.kd_layers :]) if hidden else None,
            text_mask=counted < lengths[:, None],
        )

    def _text_weights(self) -> list[torch.Tensor]:
        return [*self.text_model.parameters(), self.text_projection.weight]

    def _text_trains(self) -> bool:
        """Whether a gradient may be wanted from texts (or attention drops entries at random)."""
        if self.training and self.config.text_config.attention_dropout:
            return True
        weights = (*self._text_weights(), *self.prompts.text)
        return torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)

    def _text_state(self, with_prompts: bool = True) -> Hashable:
        """Equal as long as a text has the same embedding."""
        kind = self.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        prompts = content(self.prompts.text) if with_prompts else b""
        return autocast, prompts, versions(self._text_weights())

    def _require_classes(self) -> tuple[ClassTexts, ClassTexts]:
        if self._classes is None:
            raise ValueError("there are no classes; name them with set_classes([...]) first, or pass input_ids")
        return self._classes

    def _tokenizer(self, tokenizer: Any) -> Any:
        missing = (
            f"no tokenizer beside the checkpoint {self.name_or_path!r}; pass tokenizer=AutoTokenizer.from_pretrained("
            "'<the CLIP>')"
        )
        if tokenizer is not None:
            found = getattr(tokenizer, "tokenizer", tokenizer)
        else:
            try:
                # With a configuration at hand, that of the checkpoint is not read, which may ask to run remote code.
                found = AutoTokenizer.from_pretrained(self.name_or_path, config=CLIPConfig())
            except Exception as error:  # loaders raise many kinds for missing and damaged files
                raise ValueError(missing) from error
        # Where there are no files, transformers gives a tokenizer without words.
        ids = torch.tensor([found("a photo")["input_ids"]])
        config = self.config.text_config
        ended = config.eos_token_id in (2, int(ids[0, -1])) if ids.shape[1] > 2 else False
        fits = ended and int(text_lengths(ids, config.eos_token_id)) == ids.shape[1]
        if not fits or ids.max() >= config.vocab_size:
            ends = int(ids[0, -1]) if ids.shape[1] else None
            raise ValueError(
                missing
                if tokenizer is None
                else f"tokenizer belongs to another model: it ends a text with token {ends}, and the model of "
                f"{config.vocab_size} tokens pools at token {config.eos_token_id}"
            )
        return found

    @torch.no_grad()
    def _start_at_words(self, tokenizer: Any) -> None:
        """Begin the first text prompts at the embeddings of the template's words (the mean of a word's tokens)."""
        words, _ = self.config.split_template(self.config.template)
        for place, word in enumerate(words):
            ids = tokenizer(word, add_special_tokens=False)["input_ids"]
            embeds = self.text_model.embeddings.token_embedding.weight[ids]
            self.prompts.text[0][place] = embeds.mean(dim=0)


def _normalised(embeds: torch.Tensor) -> torch.Tensor:
    return embeds / embeds.pow(2).sum(dim=-1, keepdim=True).pow(0.5)  # rounds as in CLIPModel


def _joined(parts: Sequence[tuple[torch.Tensor, ...] | None]) -> tuple[torch.Tensor, ...] | None:
    if parts[0] is None:
        return None
    return tuple(torch.cat(layer) for layer in zip(*parts, strict=True))


__all__ = ["CommaClasses", "CommaModel", "CommaOutput"]
