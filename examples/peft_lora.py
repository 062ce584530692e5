"""Train LoRA on any model of the package, merge it, and put the small adapter back on its base. Seconds on a CPU.

    python examples/peft_lora.py [CHECKPOINT] [OUTPUT_FOLDER]

CHECKPOINT is a folder or hub name of CLIP, SigLIP, or a model of vlcomp; without one a tiny random CLIP is made. The
output folder holds the merged model, which `AutoModel` loads, and `adapter/`, which `PeftModel` puts on the base. Data
are the built-in scenes; `load_captioned("my_folder")` gives your own.
"""

import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModel

from vlcomp import ContrastiveTrainer, ContrastiveTrainingArguments, Embedder, load_captioned, load_scenes
from vlcomp.testing import save_tiny_checkpoint


def main(checkpoint: str, output: str, steps: int = 10, rows: int = 128, batch_size: int = 32) -> dict[str, float]:
    train = load_captioned(load_scenes("train", size=rows, image_size=40))
    args = ContrastiveTrainingArguments(
        output,
        per_device_train_batch_size=batch_size,
        max_steps=steps,
        learning_rate=1e-2,  # 1e-4 for a pre-trained model
        save_strategy="no",
        report_to=[],
    )
    # Without target_modules, the attention and MLP layers of both towers are adapted.
    lora = LoraConfig(r=8, lora_alpha=16)
    trainer = ContrastiveTrainer(checkpoint, args, train, peft_config=lora)
    trainable, total = trainer.model.get_nb_trainable_parameters()
    trainer.train()
    trainer.save_model()

    processor, captions = trainer.processing_class, train["caption"][:8]
    base = AutoModel.from_pretrained(checkpoint).eval()
    before = Embedder(base, processor).encode_texts(captions)
    merged = Embedder(AutoModel.from_pretrained(output).eval(), processor).encode_texts(captions)
    adapted = PeftModel.from_pretrained(base, str(Path(output, "adapter"))).eval()
    again = Embedder(adapted.get_base_model(), processor).encode_texts(captions)
    found = {
        "trainable": trainable,
        "total": total,
        "changed by training": float((merged - before).abs().max()),
        "merged against base with adapter": float((merged - again).abs().max()),
    }
    for name, value in found.items():
        print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value:.1e}")
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    given = sys.argv[1] if len(sys.argv) > 1 else str(save_tiny_checkpoint(tempfile.mkdtemp(prefix="clip-")))
    main(given, sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="lora-"))
