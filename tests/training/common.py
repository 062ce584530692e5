"""Data and settings that the tests of the trainer share."""

import datasets

from vlcomp import ContrastiveTrainer, ContrastiveTrainingArguments
from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_processor


def rows(images=16, captions=1, negatives=False):
    """A data set of tiny pictures, several captions each, with zero to two hard negatives a row."""
    texts = tiny_captions(images * captions)
    pictures = tiny_images(images, (32, 32))
    columns = {
        "image": [pictures[i // captions] for i in range(len(texts))],
        "caption": texts,
        "image_id": [100 + i // captions for i in range(len(texts))],
    }
    if negatives:
        columns["negative_captions"] = [[f"no {text}", f"{text} no"][: i % 3] for i, text in enumerate(texts)]
    return datasets.Dataset.from_dict(columns)


def settings(folder, **changes):
    values = {
        "per_device_train_batch_size": 8,
        "max_steps": 2,
        "learning_rate": 0.05,
        "optim": "sgd",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        **changes,
    }
    return ContrastiveTrainingArguments(str(folder), **values)


def trainer(folder, *, model=None, data=None, processor=None, options=None, **changes):
    return ContrastiveTrainer(
        tiny_clip() if model is None else model,
        settings(folder, **changes),
        rows() if data is None else data,
        processing_class=processor or tiny_processor(),
        **(options or {}),
    )


def with_dropout(model, rate=0.3):
    """The model with dropout on attention weights, as a user of random numbers."""
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = rate
    return model


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
