"""A page to try a model on: which label fits a picture, and which of several captions is true of it.

    pip install gradio
    python examples/gradio_demo.py CHECKPOINT

`classify` and `match` are plain functions; gradio is only needed for the page.
"""

import sys
from typing import Any

from PIL import Image

from vlcomp import Embedder, ZeroShotPipeline, load_embedder
from vlcomp.evaluation.scoring import TIE_TOLERANCE

TEMPLATE = "a photo of a {}."


def lines(text: str, what: str) -> list[str]:
    """The lines of a text box, without empty ones and repetitions; at least two."""
    found = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if len(found) < 2:
        raise ValueError(f"give at least two {what}, one a line")
    return found


def classify(pipeline: ZeroShotPipeline, picture: Image.Image | None, labels: str, template: str) -> dict[str, float]:
    """Share of each label, for `gr.Label`."""
    if picture is None:
        raise ValueError("choose a picture first")
    if template.count("{}") != 1:
        raise ValueError("the template needs one {} for the label")
    result = pipeline(picture, lines(labels, "labels"), hypothesis_template=template)
    return {row["label"]: row["score"] for row in result}


def match(embedder: Embedder, picture: Image.Image | None, captions: str) -> tuple[list[list[Any]], str]:
    """Captions with their cosines, the best first, and a sentence that says how clear it is."""
    if picture is None:
        raise ValueError("choose a picture first")
    texts = lines(captions, "captions")
    scores = embedder.similarity(embedder.encode_images([picture]), embedder.encode_texts(texts))[0]
    values, order = scores.sort(descending=True, stable=True)
    rows = [[texts[index], round(value, 4)] for index, value in zip(order.tolist(), values.tolist(), strict=True)]
    margin = float(values[0] - values[1])
    if margin <= TIE_TOLERANCE:
        return rows, "The first two captions tie: the model cannot tell them apart."
    return rows, f"The model prefers “{rows[0][0]}” by {margin:.4f} in cosine."


def require_gradio() -> Any:
    try:
        import gradio
    except ImportError:
        raise SystemExit("this demo needs gradio, which is not installed: pip install gradio") from None
    return gradio


def build(embedder: Embedder) -> Any:
    """The page, as `gradio.Blocks`."""
    gr = require_gradio()
    pipeline = ZeroShotPipeline(embedder)

    def told(function: Any) -> Any:
        def run(*values: Any) -> Any:
            try:
                return function(*values)
            except ValueError as error:
                raise gr.Error(str(error)) from error

        return run

    with gr.Blocks(title=f"vlcomp: {embedder.name}") as page:
        gr.Markdown(f"# {embedder.name}")
        picture = gr.Image(type="pil", label="Picture", height=300)
        with gr.Tab("Classify"):
            labels = gr.Textbox("cup\nstar", lines=4, label="Labels, one a line")
            template = gr.Textbox(TEMPLATE, label="Template")
            start = gr.Button("Classify")
            shares = gr.Label(label="Labels")
            start.click(told(lambda *values: classify(pipeline, *values)), [picture, labels, template], shares)
        with gr.Tab("Match captions"):
            texts = "a red cup left of a blue star\na blue cup left of a red star"
            captions = gr.Textbox(texts, lines=4, label="Captions, one a line")
            start = gr.Button("Match")
            table = gr.Dataframe(headers=["caption", "cosine"], label="Captions")
            verdict = gr.Markdown()
            start.click(told(lambda *values: match(embedder, *values)), [picture, captions], [table, verdict])
    return page


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python {sys.argv[0]} CHECKPOINT")
    require_gradio()  # before seconds go into loading a model
    build(load_embedder(sys.argv[1])).launch()
