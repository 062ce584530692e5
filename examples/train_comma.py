"""Learn prompts from 16 pictures of each class (COMMA), and name classes that were never trained. Offline, minutes.

On your own pictures a folder with one subfolder of images a class is a set: base_to_novel("clip", "flowers/"). For a
model to use rather than to compare: vlcomp train comma --data flowers/ --shots 16 --model CLIP --output runs/flowers
With OpenAI's CLIP leave out `n_ctx`, the learning rate, `random_crop` and `random_flip`: the defaults are the paper's.

    python examples/train_comma.py [OUTPUT_FOLDER]
"""

import sys
import tempfile
from pathlib import Path

from vlcomp import CommaModel
from vlcomp.protocols import base_to_novel
from vlcomp.studies.clip import pretrain_on_scenes


def main(output: str, pretraining_steps: int = 350, rows: int = 40_000, epochs: float = 10) -> dict[str, float]:
    clip = Path(output, "clip")
    if not (clip / "config.json").exists():
        pretrain_on_scenes(clip, steps=pretraining_steps, num_images=rows)

    # 80 classes such as "red cup": prompts are trained on the first half of them, both halves are measured.
    training = {
        "num_train_epochs": epochs,
        "n_ctx": 1,  # the template "a {}" has one word to take the place of
        "per_device_train_batch_size": 32,
        "learning_rate": 0.03,
        "random_crop": None,  # objects of Scenes stand on a grid
        "random_flip": False,
    }
    found = {}
    for variant in ("zero-shot", "coop", "comma"):
        result = base_to_novel(
            clip,
            "scenes/attribute-noun",
            shots=16,
            seeds=[1],  # three for numbers that mean something
            arguments={**training, "prompt_variant": variant},
            output=Path(output, variant),
            image_size=40,
        )
        print(f"{variant}\n{result.to_markdown()}")
        found[variant] = result.metrics["harmonic_mean"]

    # The prompts are a small file; with the CLIP they name any classes.
    prompts = Path(output, "comma", "scenes-attribute-noun", "seed1.safetensors")
    model = CommaModel.from_clip(clip, prompts=prompts)
    model.set_classes(["blue key", "lime bell"])
    print(f"prompts of {prompts.stat().st_size / 1e6:.1f} MB, classes now: {', '.join(model.class_names)}")
    return found


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="comma-"))
