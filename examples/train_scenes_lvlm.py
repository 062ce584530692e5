"""Train a small LLaVA that describes pictures of Scenes, offline. Half an hour on two cores.

What comes out is an ordinary image-text-to-text model: `AutoModelForImageTextToText` and `AutoProcessor` load the
folder. `examples/train_discriminative_lvlm.py` makes an embedder of it.

    python examples/train_scenes_lvlm.py [OUTPUT_FOLDER]
"""

import sys
import tempfile

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlcomp import load_scenes
from vlcomp.studies.scenes_lvlm import DETAILED, train_scenes_lvlm


def main(output: str, **settings: int) -> dict[str, float]:
    captioner = train_scenes_lvlm(output, **settings)
    print({name: round(value, 3) for name, value in captioner.metrics.items()})

    model, processor = AutoModelForImageTextToText.from_pretrained(output), AutoProcessor.from_pretrained(output)
    row = load_scenes("train", size=1, image_size=40, split="test")[0]
    content = [{"type": "image"}, {"type": "text", "text": DETAILED}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=row["image"], text=chat, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=80, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    print(f"shown:     {row['long_caption']}")
    print(f"described: {processor.decode(tokens, skip_special_tokens=True).strip()}")
    return captioner.metrics


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
