"""Train Iterated-CLIP from scratch on a built-in sample, offline, and look into it. Minutes on a CPU.

A codebook is shared by both towers, and after each generation the language agent (text tower and its head) is replaced
by a new one. On your own pictures: `load_captioned("photos")` instead of the built-in rows; for the paper's size see
new_iterated_clip.py beside this file and recipes/iterated_clip_cc3m.yaml.

    python examples/train_iterated_clip.py [OUTPUT_FOLDER]
"""

import sys
import tempfile
from pathlib import Path

from vlcomp import (
    IteratedCLIPTrainer,
    IteratedCLIPTrainingArguments,
    evaluate,
    load_captioned,
    load_embedder,
    load_scenes,
)
from vlcomp.analysis import codebook_report, ease_of_learning, list_checkpoints, write_codebook_page
from vlcomp.data import train_clip_tokenizer
from vlcomp.models.from_scratch import new_iterated_clip, new_processor


def main(
    output: str,
    generations: int = 3,
    generation_steps: int = 120,
    rows: int = 8_000,
    width: int = 128,
    layers: int = 4,
    batch_size: int = 128,
) -> dict[str, float]:
    train = load_captioned(load_scenes("train", size=rows, image_size=40))
    tokenizer = train_clip_tokenizer(train["caption"], vocab_size=1024, max_length=32)
    model = new_iterated_clip(
        tokenizer,
        image_size=40,
        patch_size=8,
        width=width,
        layers=layers,
        projection_dim=width,
        codebook_size=512,  # 4096 in the paper
        temperature=125,  # 1000 for 4096; too low, and one code is active and nothing is learned
    )
    args = IteratedCLIPTrainingArguments(
        output,
        num_generations=generations,
        generation_steps=generation_steps,  # a generation must be long enough for the new agent to recover
        codebook_freeze_steps=generation_steps // 4,
        per_device_train_batch_size=batch_size,
        learning_rate=2e-3,
        logging_steps=20,
        save_strategy="steps",
        save_steps=generation_steps,  # each generation's last model, before its agent is replaced
        save_only_model=True,
    )
    trainer = IteratedCLIPTrainer(model, args, train, processing_class=new_processor(tokenizer, 40))
    trainer.train()
    trainer.save_model()

    tasks = ["scenes/swap_attribute", "scenes/swap_object", "scenes/replace_object", "scenes/retrieval"]
    report = evaluate(output, tasks=tasks, image_size=40, limit=500, references=False, progress=False)
    print(report.to_markdown(headlines=True))

    sample = train.select(range(min(1_000, len(train))))
    images, captions = sample["image"][:], sample["caption"][:]
    for checkpoint in list_checkpoints(output):
        embedder = load_embedder(checkpoint.where)
        ease = ease_of_learning(
            embedder.model, embedder.processor, images, captions, steps=20, batch_size=min(128, len(images))
        )
        print(f"generation {checkpoint.generation}: a new language agent gets {100 * ease.final:.1f} % in 20 steps")
    embedder = load_embedder(output)
    codes = codebook_report(embedder.model, embedder.processor, images, captions)
    print(
        "what the codes stand for:", write_codebook_page(codes, Path(output, "codebook.html"), title="Iterated-CLIP")
    )
    return report.metrics


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="iterated-clip-"))
