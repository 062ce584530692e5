"""Model and data set cards: one template, filled from results files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData, ModelCardData
from huggingface_hub.repocard_data import CardData

from ..data.rows import plural
from ..evaluation.layout import facts_of, number
from ..evaluation.results import Report, markdown_table
from ..methods import Method
from .card_results import (
    StudyFacts,
    bullets,
    costs_text,
    report_results,
    scores_text,
    study_costs,
    study_results,
)
from .leaks import without_leaks
from .papers import About, about, bibtex, paper_of

# The line by which a card of ours is known again: such a card is renewed at every push, any other is kept.
MARK = "<!-- Written by vlcomp from files of results; what is edited here is lost when it is written again. -->"
_SCENES = "Scenes, the built-in world of vlcomp: drawn pictures made from a seed, with captions (Apache-2.0)"
_DRAWN = "Drawn pictures and short captions: what holds here need not hold for photographs."
_NOT_SETTINGS = ("output", "output_dir", "push_to_hub", "hub_model_id", "report_to")
_HEADINGS = {
    "about": "",
    "usage": "Use",
    "scores": "Results",
    "costs": "What got worse",
    "settings": "Training",
    "data": "Data and licences",
    "limits": "Limits",
    "recreate": "Recreate",
    "citation": "Citation",
}


def model_card(
    folder: Path, repo_id: str, *, report: Report | None = None, base: Report | None = None, license: str | None = None
) -> str:
    """The card of a trained model.

    Args:
        folder (`Path`):
            Checkpoint; `config.json` (or `adapter_config.json`) and, if there is one, `train.yaml` are read.
        repo_id (`str`):
            `owner/name`.
        report ([`~vlcomp.evaluation.Report`], *optional*):
            What was measured on the model.
        base ([`~vlcomp.evaluation.Report`], *optional*):
            The same tasks, measured on the model that training started from.
        license (`str`, *optional*):
            Licence of the weights, as an identifier of the Hub (`apache-2.0`).

    Returns:
        `str`: Markdown with a header that `ModelCard.load` reads.
    """
    settings = _training_settings(folder)
    adapter = not (folder / "config.json").is_file()
    config = json.loads((folder / ("adapter_config.json" if adapter else "config.json")).read_text(encoding="utf-8"))
    model_class = "PeftModel" if adapter else (config.get("architectures") or ["?"])[0]
    facts, paper = about(model_class), paper_of(model_class)
    base_name = config.get("base_model_name_or_path" if adapter else "base_name_or_path")
    start = base_name or settings.get("model")
    data = ModelCardData(
        license=license,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=["vlcomp", "compositionality", "vision-language", *([f"arxiv:{paper}"] if paper else [])],
        base_model=start if start and _is_hub_name(start) else None,
        model_name=repo_id.split("/")[-1],
        eval_results=(report_results(report) or None) if report is not None else None,
    )
    return _render(
        data,
        repo_id,
        about=_sentence(config, model_class, facts, start),
        usage=_usage(repo_id, model_class),
        scores=scores_text(report),
        costs=costs_text(report, base, scratch="from_scratch" in settings),
        settings=_settings(settings),
        data=_licences(settings, report, license),
        limits=_limits(facts, report),
        citation=_citation(paper),
    )


def method_card(method: Method, study: StudyFacts | None, *, link: str | None = None) -> str:
    """The card of a method: what its study found.

    Args:
        method ([`~vlcomp.methods.Method`]):
            A row of the table of methods.
        study ([`StudyFacts`], *optional*):
            Its results; `None` if there are none yet.
        link (`str`, *optional*):
            Where the result files are, seen from the card.

    Returns:
        `str`: Markdown with a header that `ModelCard.load` reads; the same for the same results.
    """
    model_class = method.model.rpartition(":")[2]
    facts, paper = about(model_class), paper_of(model_class)
    data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=["vlcomp", "compositionality", "vision-language", *([f"arxiv:{paper}"] if paper else [])],
        model_name=method.title,
        eval_results=(study_results(study) or None) if study is not None else None,
    )
    missing = "No results yet: the study of this method has not been run, so nothing is claimed here."
    scores, recreate = missing, f"```bash\nvlcomp reproduce {method.name}\n```" if method.study else ""
    if study is not None:
        every = [study, *study.parts]
        scores = "\n\n".join(
            (f"### {part.title}\n\n" if len(every) > 1 else "") + f"{part.table}\n\n{part.notes}" for part in every
        )
        scores += (
            "\n\nMean over seeds ± half of its 95 % t-interval; a cell without ± is one run, which says nothing of "
            "the spread." + (f" Every number comes from the [result files]({link})." if link else "")
        )
        recreate = "```bash\n" + "\n".join(part.command for part in every) + "\n```"
    return _render(
        data,
        method.title,
        about=facts.what,
        usage=_method_usage(method, facts),
        scores=scores,
        costs=study_costs(study) if study is not None else "",
        settings=_study_settings(study) if study is not None else "",
        data=_study_data(study) if study is not None else "",
        limits=bullets([*facts.limits, *([_DRAWN] if study is not None else [])]),
        recreate=recreate,
        citation=_citation(paper),
    )


def dataset_card(repo_id: str, settings: Mapping[str, Any], counts: Mapping[str, int], license: str) -> str:
    """The card of a data set of generated hard negatives.

    Args:
        repo_id (`str`):
            `owner/name`.
        settings (`Mapping`):
            Content of `negatives.json`, without paths.
        counts (`Mapping[str, int]`):
            `captions`, `with_negatives`, `pictures` (0 if they are not part of it) and, by type, numbers of negatives.
        license (`str`):
            Licence, as an identifier of the Hub.

    Returns:
        `str`
    """
    types = {key: value for key, value in counts.items() if key not in ("captions", "with_negatives", "pictures")}
    data = DatasetCardData(
        license=license,
        language="en",
        task_categories=["zero-shot-image-classification"],
        tags=["vlcomp", "compositionality", "hard-negatives"],
        pretty_name=repo_id.split("/")[-1],
        # Pictures and metadata.jsonl are found as they lie; alone, the rows have to be told from negatives.json.
        configs=None if counts["pictures"] else [{"config_name": "default", "data_files": "metadata.jsonl"}],
    )
    pictures = (
        f"The {counts['pictures']:,} pictures are part of the data set."
        if counts["pictures"]
        else "The pictures are not part of the data set: `image_file` names each within the source."
    )
    share = counts["with_negatives"] / counts["captions"]
    about_it = (
        f"Hard-negative captions: false captions that differ from a true one by a word or by the order of words, made "
        f"by rules from the captions of `{settings['data']}`. {counts['captions']:,} captions, "
        f"{counts['with_negatives']:,} with a negative ({share:.1%}). {pictures}"
    )
    table = markdown_table(
        ["type", "negatives", "of all captions"],
        [[name, f"{value:,}", f"{value / counts['captions']:.1%}"] for name, value in types.items()],
    )
    usage = (
        f'```python\nfrom datasets import load_dataset\n\nrows = load_dataset("{repo_id}", split="train")\n'
        'print(rows[0]["caption"], rows[0]["negative_captions"])\n```'
    )
    if counts["pictures"]:
        usage += (
            f"\n\nTrain on it: `vlcomp train imc-cmr --data {repo_id} --model MODEL --output FOLDER`, with "
            "`--use_hard_negatives true` for `vlcomp train clip`."
        )
    made = {key: value for key, value in settings.items() if value is not None and key != "copy_images"}
    return _render(
        data,
        repo_id,
        about=about_it,
        usage=usage,
        scores=f"{table}\n\nEach negative has its type in `negative_types`, and in `negative_sources` the rule, the "
        "seed, the version of the rules and the word that was changed.",
        settings=f"Settings of `vlcomp negatives`:\n\n{_yaml(made)}",
        data=f"The captions come from `{settings['data']}`; the negatives are changed copies of them, published under "
        f"`{license}` as stated by whoever pushed this data set.",
        limits=bullets(
            [
                "Made by rules and read by nobody: some are true of the picture after all, or read oddly.",
                "English only.",
            ]
        ),
    )


# -- the template ------------------------------------------------------------------------------------------


def _render(header: CardData, title: str, /, **sections: str) -> str:
    """Header, title and the sections that have something to say, in one order for all cards."""
    parts = [f"---\n{header.to_yaml()}\n---\n\n{MARK}\n\n# {title}"]
    for key, heading in _HEADINGS.items():
        text = sections.pop(key, "").strip()
        if text:
            parts.append(f"## {heading}\n\n{text}" if heading else text)
    assert not sections, sections
    return "\n\n".join(parts) + "\n"


def _yaml(settings: Mapping[str, Any]) -> str:
    import yaml

    return f"```yaml\n{yaml.safe_dump(dict(settings), sort_keys=True, allow_unicode=True).strip()}\n```"


def _sentence(config: Mapping[str, Any], model_class: str, facts: About, start: str | None) -> str:
    how = f" Training started from `{start}`." if start else ""
    kind = f" (`model_type` `{config['model_type']}`)" if "model_type" in config else ""
    return f"{facts.what}{how}\n\nClass `{model_class}`{kind}."


def _usage(repo_id: str, model_class: str) -> str:
    ours = model_class != "CLIPModel" and not model_class.startswith("Siglip")
    needs = " (needs peft)" if model_class == "DiscriminativeLVLMModel" else ""
    first = f"import vlcomp  # or pass trust_remote_code=True to pipeline, without vlcomp{needs}\n" if ours else ""
    return (
        f"```python\n{first}from PIL import Image\nfrom transformers import pipeline\n\n"
        f'classify = pipeline("zero-shot-image-classification", model="{repo_id}")\n'
        'picture = Image.new("RGB", (224, 224), "red")  # or Image.open("photo.jpg")\n'
        'print(classify(picture, candidate_labels=["a red square", "a blue square"]))\n```\n\n'
        f"Measure it: `vlcomp evaluate {repo_id} --task scenes`"
    )


def _method_usage(method: Method, facts: About) -> str:
    train = f"`vlcomp train {method.name} --help` trains it; [{method.example}](../{method.example}) is an example."
    if facts.start is None:
        return train
    imports = "import vlcomp\n" if facts.start.startswith("vlcomp.") else ""
    stock = "" if imports else "CLIPModel, "
    return (
        "```python\n"
        f"{imports}from PIL import Image\n"
        f"from transformers import AutoProcessor, {stock}pipeline\n\n"
        'start = "openai/clip-vit-base-patch32"\n'
        f"model = {facts.start}\n"
        "processor = AutoProcessor.from_pretrained(start)\n"
        'classify = pipeline(\n    "zero-shot-image-classification",\n    model=model,\n'
        "    tokenizer=processor.tokenizer,\n    image_processor=processor.image_processor,\n)\n"
        'picture = Image.new("RGB", (224, 224), "red")  # or Image.open("photo.jpg")\n'
        'print(classify(picture, candidate_labels=["a red square", "a blue square"]))\n'
        f"```\n\n{train}"
    )


# -- training, data, limits --------------------------------------------------------------------------------


def _training_settings(folder: Path) -> dict[str, Any]:
    import yaml

    file = folder / "train.yaml"
    if not file.is_file():
        return {}
    found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return {key: value for key, value in without_leaks(found).items() if key not in _NOT_SETTINGS}


def _settings(settings: Mapping[str, Any]) -> str:
    if not settings:
        return "How the model was trained is not recorded in the folder it was pushed from."
    return f"Settings that differ from the defaults, and those that always matter:\n\n{_yaml(settings)}"


def _study_settings(study: StudyFacts) -> str:
    found = {run["configuration"]: run["settings"] for run in study.runs}
    if not found:
        return ""
    lines = []
    for name, settings in found.items():
        text = ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())
        lines.append(f"**{name}**: {text or 'as it is, without training'}")
    return f"Settings of each configuration; everything else is the default of the code.\n\n{bullets(lines)}"


def _study_data(study: StudyFacts) -> str:
    lines = [f"Trained and measured on {_SCENES}."]
    lines += [
        f"{part.title}: Noto emoji drawings with their Unicode names (Apache-2.0)."
        for part in study.parts
        if "emoji" in part.title.lower()
    ]
    return bullets(lines)


def _licences(settings: Mapping[str, Any], report: Report | None, license: str | None) -> str:
    lines = []
    if settings.get("data"):
        own = settings["data"] == "scenes"
        lines.append(
            f"Trained on {_SCENES if own else '`' + str(settings['data']) + '`; its licence was not recorded'}."
        )
    else:
        lines.append("The training data are not recorded in the folder that the model was pushed from.")
    for task in report.results["tasks"] if report is not None else ():
        facts = facts_of(task)
        if facts is not None:
            line = (
                f"Measured on {facts.title} ({facts.licence}); pictures: {facts.images.what} ({facts.images.licence})."
            )
        elif task.startswith("scenes"):
            line = f"Measured on {_SCENES}."
        else:
            continue
        if line not in lines:
            lines.append(line)
    lines.append(f"Weights: {license}." if license else "Weights: whoever pushed them stated no licence.")
    return bullets(lines)


def _limits(facts: About, report: Report | None) -> str:
    lines = list(facts.limits)
    tasks = report.results["tasks"] if report is not None else {}
    at_chance = []
    for task, result in tasks.items():
        score = result["scores"][result["headline"]]
        if score["chance"] is not None and score["low"] is not None and score["low"] <= score["chance"]:
            at_chance.append(f"{task} ({number(score['value'])}, chance {number(score['chance'])})")
    if at_chance:
        lines.append(f"Not told apart from chance, or below it: {', '.join(at_chance)}.")
    if tasks and all(task.startswith("scenes") for task in tasks):
        lines.append("Measured on drawn pictures only; nothing is known of how it does on photographs.")
    small = [f"{task} ({plural(result['n'], 'item')})" for task, result in tasks.items() if result["n"] < 100]
    if small:
        lines.append(f"Measured on few items: {', '.join(small)}.")
    lines += [f"{task}: {warning}" for task, result in tasks.items() for warning in result.get("warnings", ())]
    if not tasks:
        lines.append("Not measured: nothing is known of how well it works.")
    return bullets(lines)


def _citation(paper: str | None) -> str:
    return f"```bibtex\n{bibtex(paper)}\n```" if paper else ""


def _is_hub_name(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()
