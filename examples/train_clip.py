"""Train a small CLIP from scratch on a built-in sample, offline, and measure it. About a minute on a CPU.

To fine-tune a checkpoint on your own images instead: give its name to `ContrastiveTrainer`, drop `processing_class`,
and load the data with `load_captioned("my_folder")` (pictures and a metadata.jsonl with file_name and caption).

    python examples/train_clip.py [OUTPUT_FOLDER]
"""

import sys
import tempfile

from vlcomp import ContrastiveTrainer, ContrastiveTrainingArguments, evaluate, load_captioned, load_scenes
from vlcomp.data import train_clip_tokenizer
from vlcomp.evaluation.tasks import Retrieval
from vlcomp.models.from_scratch import new_clip, new_processor


def main(output: str, rows: int = 2000, epochs: float = 5) -> dict[str, float]:
    train = load_captioned(load_scenes("train", size=rows))
    validation = Retrieval(load_scenes("retrieval", size=100, split="validation"), name="validation", gallery=False)

    tokenizer = train_clip_tokenizer(train["caption"], vocab_size=1024, max_length=48)
    model = new_clip(tokenizer, image_size=64, patch_size=16, width=64, layers=2, projection_dim=64)

    args = ContrastiveTrainingArguments(
        output,
        per_device_train_batch_size=64,
        num_train_epochs=epochs,
        learning_rate=1e-3,
        weight_decay=0.1,
        warmup_steps=0.1,
        lr_scheduler_type="cosine",
        logging_steps=10,
        # The checkpoint with the best retrieval on validation data is kept, not the last one.
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="validation/image_to_text/recall@10",
    )
    trainer = ContrastiveTrainer(
        model, args, train, processing_class=new_processor(tokenizer, 64), evaluators=[validation]
    )
    trainer.train()
    trainer.save_model()  # loads with AutoModel, AutoProcessor and pipeline("zero-shot-image-classification")

    test = Retrieval(load_scenes("retrieval", size=100), gallery=False)
    report = evaluate(output, tasks=[test], progress=False)
    print(report.to_markdown())
    return {name: score["value"] for name, score in report.results["tasks"]["retrieval"]["scores"].items()}


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="clip-"))
