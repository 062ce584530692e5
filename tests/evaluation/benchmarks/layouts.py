"""Small files in the official layout of each benchmark, and its definition as a loop over one item at a time."""

import ast
import csv
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(path: Path, size=(12, 10)) -> Path:
    """A picture of its own for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-3:]).encode()))
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def dump(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rows_of(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def load(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def two_by_two(model, images, texts) -> tuple[bool, bool]:
    """Text and image score of one item."""
    s = [[model.score(image, text) for text in texts] for image in images]
    text = s[0][0] > s[0][1] and s[1][1] > s[1][0]
    image = s[0][0] > s[1][0] and s[1][1] > s[0][1]
    return text, image


def winoground_means(outcomes: list[tuple[bool, bool]], prefix="") -> dict[str, float]:
    return {
        f"{prefix}text_score": np.mean([t for t, _ in outcomes]),
        f"{prefix}image_score": np.mean([i for _, i in outcomes]),
        f"{prefix}group_score": np.mean([t and i for t, i in outcomes]),
    }


def by(subsets: list, right: list) -> dict:
    return {
        name: np.mean([r for s, r in zip(subsets, right, strict=True) if s == name]) for name in dict.fromkeys(subsets)
    }


# -- ARO ---------------------------------------------------------------------------------------------------


def write_aro_relation(folder):
    rows = []
    for i in range(40):
        picture(folder / "images" / f"{i % 9}.jpg")
        rows.append(
            {
                "image_path": f"{i % 9}.jpg",
                "true_caption": f"the cup {i} is on the table",
                "false_caption": f"the table is on the cup {i}",
                "relation_name": ("on", "behind", "near", "wearing")[i % 7 % 4],
                "bbox_x": i % 3,
                "bbox_y": i % 2,
                "bbox_w": 5,
                "bbox_h": 6,
            }
        )
    dump(folder / "visual_genome_relation.json", rows)


def naive_aro_relation(folder, model):
    rows = json.loads((folder / "visual_genome_relation.json").read_text())
    right, relations = [], []
    for row in rows:
        x, y, w, h = (row[f"bbox_{k}"] for k in "xywh")
        image = load(folder / "images" / row["image_path"]).crop((x, y, x + w, y + h))
        right.append(model.score(image, row["true_caption"]) > model.score(image, row["false_caption"]))
        relations.append(row["relation_name"])
    means = by(relations, right)
    chosen = [means[name] for name in ("on", "behind", "wearing")]  # "near" is symmetric
    return {
        "micro/accuracy": np.mean(right),
        "macro/accuracy": np.mean(chosen),
        "macro_all/accuracy": np.mean(list(means.values())),
    }


def write_aro_attribution(folder):
    rows = []
    pairs = [("red", "old")] * 30 + [("big", "wet")] * 26 + [("new", "dry")] * 6
    for i, pair in enumerate(pairs):
        picture(folder / "images" / f"{i % 11}.jpg")
        rows.append(
            {
                "image_path": f"{i % 11}.jpg",
                "true_caption": f"the {pair[0]} cup and the {pair[1]} hat {i}",
                "false_caption": f"the {pair[1]} cup and the {pair[0]} hat {i}",
                "attributes": list(pair),
                "bbox_x": 0,
                "bbox_y": i % 4,
                "bbox_w": 4 + i % 5,
                "bbox_h": 6,
            }
        )
    dump(folder / "visual_genome_attribution.json", rows)


def naive_aro_attribution(folder, model):
    rows = json.loads((folder / "visual_genome_attribution.json").read_text())
    right, pairs = [], []
    for row in rows:
        x, y, w, h = (row[f"bbox_{k}"] for k in "xywh")
        image = load(folder / "images" / row["image_path"]).crop((x, y, x + w, y + h))
        right.append(model.score(image, row["true_caption"]) > model.score(image, row["false_caption"]))
        pairs.append("_".join(row["attributes"]))
    means = by(pairs, right)
    return {
        "micro/accuracy": np.mean(right),
        "macro/accuracy": np.mean([m for name, m in means.items() if pairs.count(name) >= 25]),
        "macro_all/accuracy": np.mean(list(means.values())),
    }


# -- Winoground and its form -------------------------------------------------------------------------------


def write_winoground(folder):
    lines = []
    for i in range(30):
        for side in (0, 1):
            picture(folder / "images" / f"ex_{i}_img_{side}.png")
        lines.append(
            json.dumps(
                {
                    "id": i,
                    "image_0": f"ex_{i}_img_0",
                    "image_1": f"ex_{i}_img_1",
                    "caption_0": f"a cup on a hat {i}",
                    "caption_1": f"a hat on a cup {i}",
                    "collapsed_tag": "Object",
                }
            )
        )
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n")


def naive_winoground(folder, model):
    outcomes = []
    for line in (folder / "examples.jsonl").read_text().splitlines():
        row = json.loads(line)
        images = [load(folder / "images" / f"{row[f'image_{k}']}.png") for k in (0, 1)]
        outcomes.append(two_by_two(model, images, [row["caption_0"], row["caption_1"]]))
    return winoground_means(outcomes)


def write_colorswap(folder):
    rows = []
    for i in range(24):
        for side in (1, 2):
            picture(folder / "images" / f"img_{i}_{side}.png")
        rows.append(
            {
                "id": i,
                "caption_1": f"a red cup and a blue hat {i}",
                "caption_2": f"a blue cup and a red hat {i}",
                "image_1": f"images/img_{i}_1.png",
                "image_2": f"images/img_{i}_2.png",
                "image_source": "midjourney",
                "caption_source": "human",
            }
        )
    dump(folder / "test.json", rows)


def naive_colorswap(folder, model):
    outcomes = []
    for row in json.loads((folder / "test.json").read_text()):
        images = [load(folder / row[f"image_{k}"]) for k in (1, 2)]
        outcomes.append(two_by_two(model, images, [row["caption_1"], row["caption_2"]]))
    return winoground_means(outcomes)


def write_eqben(folder):
    rows = []
    for i in range(20):
        part = ("eqbensd", "eqbenyoucook2")[i % 2]
        names = []
        for side in (0, 1):
            if part == "eqbensd":
                names.append(f"{part}/{i}/{side}.png")
                picture(folder / names[-1])
            else:
                names.append(f"{part}/{i}_{side}.npy")
                (folder / part).mkdir(parents=True, exist_ok=True)
                np.save(
                    folder / names[-1], np.random.default_rng(2 * i + side).integers(0, 256, (6, 5, 3), dtype=np.uint8)
                )
        rows.append(
            {"image0": names[0], "image1": names[1], "caption0": f"he opens jar {i}", "caption1": f"he shuts jar {i}"}
        )
    dump(folder / "eqben_subset_10percent_final.json", rows)


def naive_eqben(folder, model):
    def read(name):
        path = folder / name
        return Image.fromarray(np.load(path)[:, :, [2, 1, 0]]) if path.suffix == ".npy" else load(path)

    outcomes = []
    for row in json.loads((folder / "eqben_subset_10percent_final.json").read_text()):
        outcomes.append(
            two_by_two(model, [read(row["image0"]), read(row["image1"])], [row["caption0"], row["caption1"]])
        )
    return winoground_means(outcomes, "micro/") | winoground_means(outcomes[::2], "eqbensd/")


def write_bivlc(folder):
    folder.mkdir(parents=True, exist_ok=True)

    def encoded(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    for part in (0, 1):
        rows = [
            {
                "image": encoded(i // 2),
                "caption": f"a cup {part} {i}",
                "negative_caption": f"a hat {part} {i}",
                "negative_image": encoded(100 + 50 * part + i),
                "type": ("replace", "swap", "add")[i % 3],
                "subtype": "obj",
            }
            for i in range(15)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"test-0000{part}-of-00002.parquet")


def naive_bivlc(folder, model):
    outcomes, kinds = [], []
    for part in (0, 1):
        for row in pq.read_table(folder / f"test-0000{part}-of-00002.parquet").to_pylist():
            images = [Image.open(io.BytesIO(row[k]["bytes"])).convert("RGB") for k in ("image", "negative_image")]
            texts = [row["caption"], row["negative_caption"]]
            s = [[model.score(image, text) for text in texts] for image in images]
            one = (s[0][0] > s[0][1], s[1][1] > s[1][0], s[0][0] > s[1][0], s[1][1] > s[0][1])
            outcomes.append((one[0] and one[1], one[2] and one[3], all(one), *one))
            kinds.append(row["type"])
    names = ("i2t", "t2i", "group", "ipos_2t", "ineg_2t", "tpos_2i", "tneg_2i")
    found = {f"micro/{name}": np.mean([o[k] for o in outcomes]) for k, name in enumerate(names)}
    return found | {f"{kind}/group": mean for kind, mean in by(kinds, [o[2] for o in outcomes]).items()}


def write_cola(folder):
    rows = []
    for i in range(20):
        for side in (0, 1):
            picture(folder / "images" / f"{1000 + 2 * i + side}.jpg")
        url = "https://cs-people.bu.edu/array/data/vg_gqa_images"
        rows.append([f"{url}/{1000 + 2 * i}.jpg", f"red cup {i}", f"{url}/{1001 + 2 * i}.jpg", f"blue cup {i}"])
    dump(folder / "COLA_multiobjects_matching_benchmark.json", rows)


def naive_cola(folder, model):
    outcomes = []
    for first, text_1, second, text_2 in json.loads(
        (folder / "COLA_multiobjects_matching_benchmark.json").read_text()
    ):
        images = [load(folder / "images" / url.split("/")[-1]) for url in (first, second)]
        outcomes.append(two_by_two(model, images, [text_1, text_2]))
    return winoground_means(outcomes)


def write_mmvp_vlm(folder):
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["Question ID,Type,Statement"]
    for pair in range(18):
        kind = ("Texts", "Quantity and Count", "Color and Appearance")[pair // 6]
        for side in (0, 1):
            number = 2 * pair + side + 1
            picture(folder / "MLLM_VLM Images" / kind / f"{number}.jpg")
            lines.append(f'{number},{kind},"a cup, number {number}"')
    (folder / "Questions.csv").write_text("\n".join(lines) + "\n")


def naive_mmvp_vlm(folder, model):
    rows = list(csv.reader((folder / "Questions.csv").open(newline="")))[1:]
    right, kinds = [], []
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        images = [load(folder / "MLLM_VLM Images" / first[1] / f"{row[0]}.jpg") for row in (first, second)]
        texts = ["a photo of " + row[2] for row in (first, second)]
        s = [[model.score(image, text) for image in images] for text in texts]
        right.append(s[0][0] > s[0][1] and s[1][1] > s[1][0])
        kinds.append(first[1])
    means = by(kinds, right)
    return {"micro/accuracy": np.mean(right), "macro/accuracy": np.mean(list(means.values()))} | {
        f"{kind}/accuracy": mean for kind, mean in means.items()
    }


# -- choices -----------------------------------------------------------------------------------------------


def write_svo_probes(folder):
    rows = []
    for i in range(30):
        kind = i % 3
        for side in (0, 1):
            picture(folder / "images" / f"{10 * side + i % 7}.jpg")
        rows.append(
            {
                "sentence": f"A man rides horse {i // 2}.",
                "pos_triplet": "man,ride,horse",
                "neg_triplet": "man,feed,horse",
                "pos_url": "http://example.org/p.jpg",
                "neg_url": "http://example.org/n.jpg",
                "pos_image_id": i % 7,
                "neg_image_id": 10 + i % 7,
                "subj_neg": kind == 0,
                "verb_neg": kind == 1,
                "obj_neg": kind == 2,
            }
        )
    table(folder / "svo_probes.csv", rows)


def naive_svo_probes(folder, model):
    right, kinds = [], []
    for row in rows_of(folder / "svo_probes.csv"):
        positive, negative = (load(folder / "images" / f"{row[f'{k}_image_id']}.jpg") for k in ("pos", "neg"))
        right.append(model.score(positive, row["sentence"]) > model.score(negative, row["sentence"]))
        kinds.append(
            {"subj": "subject", "verb": "verb", "obj": "object"}[
                next(k for k in ("subj", "verb", "obj") if row[f"{k}_neg"] == "True")
            ]
        )
    return {"micro/accuracy": np.mean(right)} | {f"{k}/accuracy": m for k, m in by(kinds, right).items()}


SPEC = ("absolute_size", "relative_size", "absolute_spatial", "relative_spatial", "existence", "count")


def write_spec(folder):
    for subset, size in zip(SPEC, (3, 3, 9, 4, 2, 9), strict=True):
        texts, images = [], []
        for case in range(4):
            names = [f"{case}/{k}.jpg" for k in range(size)]
            for name in names:
                picture(folder / subset / name)
            phrases = [f"{subset} of cup {case} is {k}" for k in range(size)]
            for k in range(size):
                texts.append({"query": names[k], "keys": phrases, "label": k})
                images.append({"query": phrases[k], "keys": names, "label": k})
        dump(folder / subset / "image2text.json", texts)
        dump(folder / subset / "text2image.json", images)


def naive_spec(folder, model, file, score):
    means = {}
    for subset in SPEC:
        right = []
        for row in json.loads((folder / subset / file).read_text()):
            scores = [score(folder / subset, row["query"], key) for key in row["keys"]]
            own = scores.pop(row["label"])
            right.append(own > max(scores))
        means[f"{subset}/accuracy"] = np.mean(right)
    return means | {"macro/accuracy": np.mean(list(means.values()))}


def naive_spec_text(folder, model):
    return naive_spec(folder, model, "image2text.json", lambda at, image, text: model.score(load(at / image), text))


def naive_spec_image(folder, model):
    return naive_spec(folder, model, "text2image.json", lambda at, text, image: model.score(load(at / image), text))


def write_whatsup_a(folder):
    rows = []
    for pair in range(8):
        options = [f"A cup {pair} {p} a table" for p in ("to the left of", "to the right of", "on", "under")]
        for k, word in enumerate(("left_of", "right_of", "on", "under")):
            name = f"controlled_images/cup{pair}_{word}_table.jpeg"
            picture(folder / name)
            rows.append(
                {"image_path": f"data/{name}", "caption_options": [options[k], *options[:k], *options[k + 1 :]]}
            )
    dump(folder / "controlled_images_dataset.json", rows)


def naive_whatsup_a(folder, model):
    right = {}
    for row in json.loads((folder / "controlled_images_dataset.json").read_text()):
        image = load(folder / row["image_path"].removeprefix("data/"))
        own, *others = (model.score(image, text) for text in row["caption_options"])
        cup, word = row["image_path"].split("/")[-1].split("_")[:2]
        right[cup, word] = own > max(others)
    cups = list(dict.fromkeys(cup for cup, _ in right))
    pairs = [right[cup, a] and right[cup, b] for cup in cups for a, b in (("left", "right"), ("on", "under"))]
    return {
        "micro/accuracy": np.mean(list(right.values())),
        "under/accuracy": np.mean([right[cup, "under"] for cup in cups]),
        "pair_accuracy": np.mean(pairs),
        "set_accuracy": np.mean([all(right[cup, w] for w in ("left", "right", "on", "under")) for cup in cups]),
    }


def write_whatsup_coco_two(folder):
    rows = []
    for i in range(20):
        picture(folder / "val2017" / f"{i % 6:012d}.jpg")
        sides = ("left of", "right of") if i % 2 else ("above", "below")
        rows.append([i % 6, *(f"A photo of a cup {side} a dog {i}" for side in sides)])
    dump(folder / "coco_qa_two_obj.json", rows)


def naive_whatsup_coco_two(folder, model):
    right, words = [], []
    for number, true, false in json.loads((folder / "coco_qa_two_obj.json").read_text()):
        image = load(folder / "val2017" / f"{number:012d}.jpg")
        right.append(model.score(image, true) > model.score(image, false))
        words.append("left" if "left of" in true else "above")
    return {"micro/accuracy": np.mean(right)} | {f"{k}/accuracy": m for k, m in by(words, right).items()}


def write_crepe(folder):
    for n in range(4, 13):
        rows = []
        for i in range(6):
            picture(folder / "images" / "VG_100K" / f"{i % 4 + 1}.jpg")
            rows.append(
                {
                    "image_id": i % 4 + 1,
                    "x": i % 3,
                    "y": 1,
                    "width": 6,
                    "height": 5,
                    "caption": f"cup {i}, {n} words",
                    "hard_negs": str([f"no cup {i} of {n}, {k}" for k in range(5)]),
                }
            )
        table(folder / f"prod_hard_negatives/negate/prod_vg_hard_negs_negate_complexity_{n}.csv", rows)


def naive_crepe(folder, model):
    means = {}
    for n in range(4, 13):
        right = []
        for row in rows_of(folder / f"prod_hard_negatives/negate/prod_vg_hard_negs_negate_complexity_{n}.csv"):
            x, y, w, h = (int(row[k]) for k in ("x", "y", "width", "height"))
            image = load(folder / "images" / "VG_100K" / f"{row['image_id']}.jpg").crop((x, y, x + w, y + h))
            own = model.score(image, row["caption"])
            right.append(own > max(model.score(image, text) for text in ast.literal_eval(row["hard_negs"])))
        means[f"complexity_{n:02}/accuracy"] = np.mean(right)
    return means | {"macro/accuracy": np.mean(list(means.values()))}


def write_crepe_syst(folder):
    for split, count in (("seen_compounds", 9), ("unseen_compounds", 5)):
        rows = []
        for i in range(count):
            picture(folder / "images" / "VG_100K_2" / f"{i + 1}.jpg")
            rows.append(
                {
                    "image_id": i + 1,
                    "x": 0,
                    "y": 0,
                    "width": 8,
                    "height": 8,
                    "caption": f"{split} cup {i}",
                    "valid_hard_negs_atom": str([f"{split} hat {i} {k}" for k in range(1 + i % 3)]),
                    "valid_hard_negs_comp": str([f"{split} red hat {i} {k}" for k in range(4)]),
                }
            )
        table(folder / f"syst_hard_negatives/syst_vg_hard_negs_{split}_in_laion.csv", rows)


def naive_crepe_syst(folder, model):
    means = {}
    for split in ("seen_compounds", "unseen_compounds"):
        right = []
        for row in rows_of(folder / f"syst_hard_negatives/syst_vg_hard_negs_{split}_in_laion.csv"):
            image = load(folder / "images" / "VG_100K_2" / f"{row['image_id']}.jpg").crop((0, 0, 8, 8))
            foils = ast.literal_eval(row["valid_hard_negs_atom"])
            right.append(all(model.score(image, row["caption"]) > model.score(image, text) for text in foils))
        means[f"{split}/accuracy"] = np.mean(right)
    return means | {"macro/accuracy": np.mean(list(means.values()))}


VL_FILES = {
    "Attribute/vg/color.json": "vg/VG_100K",
    "Attribute/vaw/size.json": "vg/VG_100K_2",
    "Object/Location/hake_location/hake_obj_center.json": "hake/vcoco",
    "Object/Size/swig_size/swig_agent/swig_agent_small.json": "swig",
    "Relation/vg/spatial.json": "vg/VG_100K",
}


def write_vl_checklist(folder):
    for number, (name, root) in enumerate(VL_FILES.items()):
        rows = []
        top, _, below = root.partition("/")
        for i in range(5 + number):
            image = f"{below}/{i}.jpg" if below else f"{i}.jpg"
            picture(folder / "images" / top / image)
            rows.append([image, {"POS": [f"red cup {number} {i}"], "NEG": [f"blue cup {number} {i}"]}])
        dump(folder / name, rows)


def naive_vl_checklist(folder, model):
    means = {}
    for name, root in VL_FILES.items():
        right = []
        for image, phrases in json.loads((folder / name).read_text()):
            shown = load(folder / "images" / root.split("/")[0] / image)
            right.append(model.score(shown, phrases["POS"][0]) > model.score(shown, phrases["NEG"][0]))
        means[name[:-5].lower() + "/accuracy"] = np.mean(right)
    tops = [np.mean([m for n, m in means.items() if n.startswith(top)]) for top in ("object", "attribute", "relation")]
    return means | {
        "macro_groups/accuracy": np.mean(tops),
        "object/accuracy": tops[0],
        "macro/accuracy": np.mean(list(means.values())),
    }


def write_negbench(folder):
    rows = []
    for i in range(24):
        picture(folder / "images" / f"{i % 8:012d}.jpg")
        rows.append(
            {
                "image_path": f"/home/somebody/coco/val2017/{i % 8:012d}.jpg",
                "correct_answer": i % 4,
                **{f"caption_{k}": f"A cup, but no dog {i} {k}" for k in range(4)},
                "correct_answer_template": ("positive", "negative", "hybrid")[i % 3],
            }
        )
    table(folder / "images" / "COCO_val_mcq_llama3.1_rephrased.csv", rows)


def naive_negbench(folder, model):
    right, kinds = [], []
    for row in rows_of(folder / "images" / "COCO_val_mcq_llama3.1_rephrased.csv"):
        image = load(folder / "images" / row["image_path"].split("/")[-1])
        scores = [model.score(image, row[f"caption_{k}"]) for k in range(4)]
        own = scores.pop(int(row["correct_answer"]))
        right.append(own > max(scores))
        kinds.append(row["correct_answer_template"])
    return {"micro/accuracy": np.mean(right)} | {f"{k}/accuracy": m for k, m in by(kinds, right).items()}


def recalls(model, images: list[Image.Image], captions: list[tuple[int, str]]) -> dict[str, float]:
    """Recall both ways, ties wrong."""
    scores = [[model.score(image, text) for _, text in captions] for image in images]
    found = {}
    for k in (1, 5, 10):
        hits = []
        for i, row in enumerate(scores):
            best = max(s for s, (own, _) in zip(row, captions, strict=True) if own == i)
            hits.append(sum(s >= best for s, (own, _) in zip(row, captions, strict=True) if own != i) < k)
        found[f"image_to_text/recall@{k}"] = np.mean(hits)
        hits = []
        for c, (own, _) in enumerate(captions):
            hits.append(sum(scores[i][c] >= scores[own][c] for i in range(len(images)) if i != own) < k)
        found[f"text_to_image/recall@{k}"] = np.mean(hits)
    return found


def write_coco_retrieval(folder):
    rows = []
    for i in range(14):
        picture(folder / "val2014" / f"COCO_val2014_{i:012d}.jpg")
        rows.append(
            {"image": f"val2014/COCO_val2014_{i:012d}.jpg", "caption": [f"cup {i} {k}" for k in range(5 + i % 2)]}
        )
    dump(folder / "coco_karpathy_test.json", rows)


def naive_coco_retrieval(folder, model):
    rows = json.loads((folder / "coco_karpathy_test.json").read_text())
    captions = [(i, text) for i, row in enumerate(rows) for text in row["caption"]]
    return recalls(model, [load(folder / row["image"]) for row in rows], captions)


def write_negbench_retrieval(folder):
    rows = []
    for i in range(12):
        picture(folder / "images" / f"{i:012d}.jpg")
        rows.append(
            {"filepath": f"data/coco/{i:012d}.jpg", "captions": str([f"a cup {i}, no dog {k}" for k in range(2)])}
        )
    table(folder / "images" / "COCO_val_retrieval.csv", rows)


def naive_negbench_retrieval(folder, model):
    rows = rows_of(folder / "images" / "COCO_val_retrieval.csv")
    captions = [(i, text) for i, row in enumerate(rows) for text in ast.literal_eval(row["captions"])]
    return recalls(model, [load(folder / "images" / row["filepath"].split("/")[-1]) for row in rows], captions)


# Name of the task, how to write its files, its definition.
LAYOUTS = [
    ("aro/relation", write_aro_relation, naive_aro_relation),
    ("aro/attribution", write_aro_attribution, naive_aro_attribution),
    ("winoground", write_winoground, naive_winoground),
    ("colorswap", write_colorswap, naive_colorswap),
    ("eqben", write_eqben, naive_eqben),
    ("bivlc", write_bivlc, naive_bivlc),
    ("cola", write_cola, naive_cola),
    ("mmvp_vlm", write_mmvp_vlm, naive_mmvp_vlm),
    ("svo_probes", write_svo_probes, naive_svo_probes),
    ("spec/image_to_text", write_spec, naive_spec_text),
    ("spec/text_to_image", write_spec, naive_spec_image),
    ("whatsup/controlled_a", write_whatsup_a, naive_whatsup_a),
    ("whatsup/coco_two", write_whatsup_coco_two, naive_whatsup_coco_two),
    ("crepe/productivity_negate", write_crepe, naive_crepe),
    ("crepe/systematicity_laion_atom", write_crepe_syst, naive_crepe_syst),
    ("vl_checklist", write_vl_checklist, naive_vl_checklist),
    ("negbench/mcq_coco", write_negbench, naive_negbench),
    ("coco_retrieval", write_coco_retrieval, naive_coco_retrieval),
    ("negbench/retrieval_coco", write_negbench_retrieval, naive_negbench_retrieval),
]
