"""Turn COCO's caption annotations into a folder that vlcomp reads: metadata.jsonl beside the pictures.

    python examples/prepare_coco.py --annotations captions_train2014.json --images train2014/ --output coco/

One line a picture, with its five captions as a list: captions of one picture are never each other's negatives.
The pictures stay where they are and are linked; `--copy` copies them.
"""

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path


def main(annotations: Path, images: Path, output: Path, copy: bool = False) -> int:
    content = json.loads(annotations.read_text(encoding="utf-8"))
    captions = defaultdict(list)
    for entry in content["annotations"]:
        captions[entry["image_id"]].append(" ".join(entry["caption"].split()))
    lines, missing = [], []
    for image in content["images"]:
        if not captions[image["id"]]:
            continue
        if not (images / image["file_name"]).is_file():
            missing.append(image["file_name"])
        row = {"file_name": f"images/{image['file_name']}", "caption": captions[image["id"]], "image_id": image["id"]}
        lines.append(json.dumps(row))
    if missing:
        raise SystemExit(f"{len(missing)} of {len(lines)} pictures are not in {images}, first {missing[0]}")
    output.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copytree(images, output / "images", dirs_exist_ok=True)
    elif not (output / "images").exists():
        (output / "images").symlink_to(images.resolve(), target_is_directory=True)
    (output / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines):,} pictures with {sum(map(len, captions.values())):,} captions in {output}")
    return len(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True, help="captions_train2014.json")
    parser.add_argument("--images", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--copy", action="store_true", help="copy the pictures instead of linking their folder")
    arguments = parser.parse_args()
    main(arguments.annotations, arguments.images, arguments.output, arguments.copy)
