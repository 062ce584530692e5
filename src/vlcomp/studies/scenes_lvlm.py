"""A small LLaVA that captions Scenes: the generative model that the discriminative LVLM starts from, offline."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from ..data.images import load_image
from ..data.scenes import load_scenes
from ..data.scenes.world import COLOURS, SHAPES
from ..errors import ArgumentError
from .clip import IMAGE_SIZE, pretrain_on_scenes

logger = logging.getLogger(__name__)

BOS, EOS, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"
# LLaVA-1.5's form of a conversation.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# What the model is taught: an instruction, and how often. The last two make it read texts and answer in one word, as
# any LVLM does; with them, its untrained embeddings under the prompts of the method mean something.
DETAILED = "Describe the image in detail."
BRIEF = "Describe the image briefly."
IMAGE_WORD = "Summarize the provided image in one word:"
TEXT_WORD = "Summarize the provided text in one word:"
TASKS = {DETAILED: 0.5, BRIEF: 0.25, IMAGE_WORD: 0.125, TEXT_WORD: 0.125}
_WORDS = frozenset(SHAPES) | frozenset(COLOURS)
_IGNORED = -100


@dataclass(frozen=True)
class Captioner:
    """A trained captioner's folder, and how well it captions.

    Args:
        folder (`Path`):
            Model and processor, as `AutoModelForImageTextToText` and `AutoProcessor` read them.
        metrics (`dict[str, float]`):
            On the validation split; see [`caption_quality`].
    """

    folder: Path
    metrics: dict[str, float]


def train_lvlm_tokenizer(texts: Iterable[str], *, vocab_size: int = 640) -> PreTrainedTokenizerBase:
    """Learn a byte-pair vocabulary with the special tokens of LLaVA.

    Every byte is in the vocabulary, so no text has an unknown token. A text begins with `<s>`; batches are padded on
    the left, as generation needs it.

    Args:
        texts (`Iterable[str]`):
            Texts to learn from; the instructions of [`TASKS`] are added.
        vocab_size (`int`, defaults to 640):
            Upper limit of the vocabulary.

    Returns:
        `PreTrainedTokenizerBase`

    Raises:
        ArgumentError: if `vocab_size` is too small for the bytes and special tokens.

    Example:
        >>> from vlcomp.studies.scenes_lvlm import train_lvlm_tokenizer
        >>> tokenizer = train_lvlm_tokenizer(["a red star", "a blue cup"])
        >>> tokenizer.decode(tokenizer("a red cup").input_ids, skip_special_tokens=True).strip()
        'a red cup'
    """
    special = [PAD, BOS, EOS, IMAGE]
    if vocab_size < 256 + len(special):
        raise ArgumentError(
            f"vocab_size={vocab_size} is below {256 + len(special)}, the bytes and special tokens alone"
        )
    backend = Tokenizer(models.BPE())
    # A space before the first word: a word has one token wherever it stands.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    chat = [f"USER: {IMAGE}\n{instruction} ASSISTANT:" for instruction in TASKS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*(line.replace(IMAGE, "") for line in chat * 20), *texts], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def new_llava(
    clip: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: Any,
    *,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    seed: int = 0,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Put the vision tower of a CLIP before a new language model.

    The tower is that of the CLIP but for its last block, whose patch outputs CLIP does not train (it pools at the
    class token); LLaVA leaves that block out in the same way.

    Args:
        clip (`CLIPModel`):
            Gives the vision tower; not changed.
        tokenizer (`PreTrainedTokenizerBase`):
            From [`train_lvlm_tokenizer`].
        image_processor (`BaseImageProcessor`):
            That of the CLIP.
        width (`int`, defaults to 128):
            Hidden size of the language model.
        layers (`int`, defaults to 4):
            Its blocks.
        heads (`int`, defaults to 4):
            Attention heads of each.
        seed (`int`, defaults to 0):
            Seed of the new weights. The global random state is left as it was.

    Returns:
        `tuple[LlavaForConditionalGeneration, LlavaProcessor]`: the model in evaluation mode, and its processor.

    Raises:
        ArgumentError: if the sizes do not fit each other.
    """
    if width % heads:
        raise ArgumentError(f"width={width} is not a multiple of heads={heads}")
    depth = clip.config.vision_config.num_hidden_layers - 1
    if depth < 1:
        raise ArgumentError("clip has a vision tower of one block, and the last is left out; give it at least 2")
    vision = clip.config.vision_config.to_dict() | {"num_hidden_layers": depth}
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=patches,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).eval()
    kept = {name: value for name, value in clip.vision_model.state_dict().items() if f"layers.{depth}." not in name}
    model.model.vision_tower.load_state_dict(kept)
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=vision["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which the strategy "default" takes away again
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def train_scenes_lvlm(
    folder: str | Path,
    *,
    clip: str | Path | None = None,
    clip_steps: int = 350,
    steps: int = 4_000,
    seed: int = 0,
    num_images: int = 20_000,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    width: int = 128,
    layers: int = 4,
    eval_items: int = 200,
    progress: bool = True,
) -> Captioner:
    """Train a small LLaVA to caption Scenes, and measure its captions on the validation split.

    First a CLIP is pre-trained on short captions, then its vision tower, a projector and a new language model learn
    together to describe pictures in detail or briefly, and to name a word of a picture or a text.

    Args:
        folder (`str` or `Path`):
            Where the model goes.
        clip (`str` or `Path`, *optional*):
            A CLIP of [`~vlcomp.studies.clip.pretrain_on_scenes`]; one is pre-trained if not given.
        clip_steps (`int`, defaults to 350):
            Steps of its pre-training.
        steps (`int`, defaults to 4,000):
            Optimiser steps of captioning. It learns what descriptions look like first, then shapes, and colours last.
        seed (`int`, defaults to 0):
            Seed of the weights, the tasks and the order of the data. The pictures are the same for every seed.
        num_images (`int`, defaults to 20,000):
            Training pictures.
        batch_size (`int`, defaults to 32):
            Conversations in a batch.
        learning_rate (`float`, defaults to 2e-3):
            Peak of a cosine schedule with 50 steps of warm-up; the vision tower has a quarter of it.
        width (`int`, defaults to 128):
            Hidden size of the language model.
        layers (`int`, defaults to 4):
            Its blocks.
        eval_items (`int`, defaults to 200):
            Validation pictures to caption.
        progress (`bool`, defaults to `True`):
            Show progress bars.

    Returns:
        [`Captioner`]

    Raises:
        CheckpointError: if `clip` cannot be read.
    """
    folder = Path(folder)
    if clip is None:
        clip = pretrain_on_scenes(
            folder / "clip", steps=clip_steps, seed=seed, eval_steps=clip_steps, eval_items=100, progress=progress
        ).folder
    start, start_processor = AutoModel.from_pretrained(clip), AutoProcessor.from_pretrained(clip)
    image_size = start.config.vision_config.image_size
    rows = load_scenes("train", size=num_images, image_size=image_size)
    tokenizer = train_lvlm_tokenizer([*rows["caption"][:5000], *rows["long_caption"][:5000]])
    model, processor = new_llava(
        start, tokenizer, start_processor.image_processor, width=width, layers=layers, seed=seed
    )
    arguments = TrainingArguments(
        output_dir=str(folder / "training"),
        per_device_train_batch_size=batch_size,
        max_steps=steps,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(50, max(1, steps // 4)),
        weight_decay=0.05,
        adam_beta2=0.98,
        seed=seed,
        save_strategy="no",
        logging_steps=max(1, min(50, steps // 4)),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=not progress,
        report_to=[],
    )
    trainer = _CaptionTrainer(
        model,
        arguments,
        train_dataset=rows.select_columns(["image", "caption", "long_caption"]),
        data_collator=CaptionCollator(processor, seed=seed),
    )
    trainer.train()
    model = model.cpu().eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    shutil.rmtree(folder / "training", ignore_errors=True)
    held = load_scenes("train", size=eval_items, image_size=image_size, split="validation")
    return Captioner(folder, caption_quality(model, processor, held))


class _CaptionTrainer(Trainer):
    """Trains the vision tower slower than the new parts: at their rate it would lose what it knows already."""

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        tower = {id(parameter) for parameter in self.model.model.vision_tower.parameters()}
        groups = []
        for group in optimizer.param_groups:
            slow = [parameter for parameter in group["params"] if id(parameter) in tower]
            fast = [parameter for parameter in group["params"] if id(parameter) not in tower]
            groups += [{**group, "params": fast}] if fast else []
            groups += [{**group, "params": slow, "lr": group["lr"] / 4}] if slow else []
        optimizer.param_groups[:] = groups
        return optimizer


class CaptionCollator:
    """Make conversations of rows with `image`, `caption` and `long_caption`: one of [`TASKS`] for each row.

    Args:
        processor (`LlavaProcessor`):
            Processor of the model.
        seed (`int`, defaults to 0):
            Seed of the choice of tasks and words.
        tasks (`Mapping[str, float]`, *optional*):
            Instructions and how often each is drawn; [`TASKS`] if not given.
    """

    def __init__(self, processor: LlavaProcessor, *, seed: int = 0, tasks: Mapping[str, float] | None = None) -> None:
        self.processor = processor
        self.tasks = dict(TASKS if tasks is None else tasks)
        self._rng = random.Random(f"captions/{seed}")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make the batch.

        Args:
            rows (`Sequence[Mapping]`):
                The rows.

        Returns:
            `dict[str, torch.Tensor]`: `input_ids`, `attention_mask`, `labels` [B, L], padded on the left, and
            `pixel_values` of the rows that show a picture.
        """
        names = self._rng.choices(list(self.tasks), list(self.tasks.values()), k=len(rows))
        asked = [self._conversation(row, name) for row, name in zip(rows, names, strict=True)]
        return encode_conversations(self.processor, [turn[0] for turn in asked], [turn[1] for turn in asked])

    def _conversation(self, row: Mapping[str, Any], name: str) -> tuple[tuple[Any, str], str]:
        words = [word for word in row["caption"].replace(",", "").split() if word in _WORDS]
        if name == DETAILED:
            return (row["image"], name), row["long_caption"]
        if name == BRIEF or not words:
            return (row["image"], BRIEF), row["caption"]
        if name == IMAGE_WORD:
            return (row["image"], name), self._rng.choice(words)
        return (None, f"{row['caption']}\n{name}"), self._rng.choice(words)


def encode_conversations(
    processor: LlavaProcessor, questions: Sequence[tuple[Any, str]], answers: Sequence[str] | None = None
) -> dict[str, torch.Tensor]:
    """Tokens of questions, and of their answers if given.

    Args:
        processor (`LlavaProcessor`):
            Processor of the model.
        questions (`Sequence[tuple]`):
            A picture (or `None`) and a text, each.
        answers (`Sequence[str]`, *optional*):
            What the model is to say.

    Returns:
        `dict[str, torch.Tensor]`: `input_ids`, `attention_mask` and, with answers, `labels` [B, L], padded on the
        left; `pixel_values` of the questions with a picture, if any.
    """
    prompts, pictures = [], []
    for picture, text in questions:
        content = [{"type": "image"}] * (picture is not None) + [{"type": "text", "text": text}]
        message = {"role": "user", "content": content}
        prompts.append(processor.apply_chat_template([message], add_generation_prompt=True))
        if picture is not None:
            pictures.append(load_image(picture))
    encoded = processor(text=prompts, images=pictures or None)
    ids = [list(row) for row in encoded["input_ids"]]
    labels = [[_IGNORED] * len(row) for row in ids]
    if answers is not None:
        # A text without `<s>` begins with a space, as after "ASSISTANT:" in one text.
        end = processor.tokenizer.eos_token_id
        found = processor.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        labels = [old + new + [end] for old, new in zip(labels, found, strict=True)]
        ids = [old + new + [end] for old, new in zip(ids, found, strict=True)]
    batch = {
        "input_ids": _padded(ids, processor.tokenizer.pad_token_id),
        "attention_mask": _padded([[1] * len(row) for row in ids], 0),
    }
    if answers is not None:
        batch["labels"] = _padded(labels, _IGNORED)
    if pictures:
        batch["pixel_values"] = torch.from_numpy(np.stack(encoded["pixel_values"]))
    return batch


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[fill] * (width - len(row)) + row for row in rows])


@torch.inference_mode()
def caption_quality(
    model: torch.nn.Module, processor: LlavaProcessor, rows: Iterable[Mapping[str, Any]], *, batch_size: int = 50
) -> dict[str, float]:
    """How well a model describes Scenes in detail.

    The order in which a description names the objects is free, so an exact match is one of facts: the sentences on
    number, background and objects (size, texture, colour, shape, place) are those of the true description, in any
    order. Sentences on relations are not compared.

    Args:
        model (`LlavaForConditionalGeneration` or a model with its `forward` and `generate`):
            The captioner.
        processor (`LlavaProcessor`):
            Its processor.
        rows (`Iterable[Mapping]`):
            With `image` and `long_caption`.
        batch_size (`int`, defaults to 50):
            Pictures at a time.

    Returns:
        `dict[str, float]`: `token_accuracy`, the share of the true description's tokens that the model finds most
        likely after those before it; `exact_match`, the share of descriptions that state exactly the facts; and
        `sentence_match`, the share of the facts that are stated.

    Raises:
        ArgumentError: if there is no row.
    """
    right = count = exact = stated = facts = items = 0
    device = next(model.parameters()).device
    for part in _batches(rows, batch_size):
        questions = [(row["image"], DETAILED) for row in part]
        answers = [row["long_caption"] for row in part]
        batch = {k: v.to(device) for k, v in encode_conversations(processor, questions, answers).items()}
        labels = functional.pad(batch.pop("labels"), (0, 1), value=_IGNORED)[:, 1:]
        predicted = model(**batch).logits.argmax(dim=-1)
        counts = labels != _IGNORED
        right += int((predicted == labels)[counts].sum())
        count += int(counts.sum())
        asked = {k: v.to(device) for k, v in encode_conversations(processor, questions).items()}
        longest = int(counts.sum(dim=1).max()) + 8
        made = model.generate(**asked, max_new_tokens=longest, do_sample=False)[:, asked["input_ids"].shape[1] :]
        for text, answer in zip(processor.batch_decode(made, skip_special_tokens=True), answers, strict=True):
            wanted, found = _facts(answer), _facts(text)
            exact += wanted == found
            stated += len(wanted & found)
            facts += len(wanted)
            items += 1
    if not items:
        raise ArgumentError("rows is empty; there is nothing to caption")
    return {"token_accuracy": right / count, "exact_match": exact / items, "sentence_match": stated / facts}


def _facts(text: str) -> frozenset[str]:
    """The sentences of a description but for those on relations."""
    sentences = (sentence.strip() for sentence in text.split("."))
    return frozenset(s for s in sentences if s.startswith(("The picture shows", "There is")))


def _batches(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    part: list[Mapping[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


__all__ = [
    "IMAGE_SIZE",
    "CaptionCollator",
    "Captioner",
    "caption_quality",
    "encode_conversations",
    "new_llava",
    "train_lvlm_tokenizer",
    "train_scenes_lvlm",
]
