"""`vlcomp train clip`, called as from the shell."""

import json

import pytest
import yaml
from transformers import AutoModel, pipeline

from _vlcomp_cli import main
from vlcomp import IteratedCLIPTrainingArguments
from vlcomp.data import ContrastiveCollator, load_captioned
from vlcomp.testing import make_captioned_folder, tiny_images
from vlcomp.training.publishing import training_settings

QUICK = ["--max-steps", "2", "--batch-size", "8", "--disable_tqdm", "true", "--use_cpu", "--logging-steps=1"]
SMALL = ["--from-scratch", "small", "--image-size", "32", "--width", "32", "--layers", "1", "--vocab-size", "600"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return str(make_captioned_folder(tmp_path_factory.mktemp("photos"), n=24, captions_per_image=2))


def test_from_scratch_with_held_out_rows(photos, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = ["--data", photos, "--output", str(output), "--test-fraction", "0.25", *SMALL, *QUICK]
    assert main(["train", "clip", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "36 rows to train on, 12 held out" in printed
    assert "retrieval/image_to_text/recall@10" in printed
    assert "chance" in printed
    results = json.loads((output / "evaluation" / "results.json").read_text())
    assert results["tasks"]["retrieval"]["scores"]["image_to_text/recall@1"]["n"] == 6
    model = AutoModel.from_pretrained(output)
    assert model.config.vision_config.image_size == 32
    assert model.config.text_config.hidden_size == 32
    classify = pipeline("zero-shot-image-classification", model=str(output))
    assert len(classify(tiny_images(1)[0], candidate_labels=["a cup", "a star"])) == 2


def test_iterated_clip_from_scratch_with_options_of_its_codebook(photos, tmp_path, capsys):
    output = tmp_path / "run"
    quick = ["--batch-size", "8", "--disable_tqdm", "true", "--use_cpu", "--logging-steps=1"]
    steps = ["--num_generations", "2", "--generation_steps", "4", "--codebook_freeze_steps", "2"]
    codes = ["--codebook-size", "40", "--temperature", "3"]
    common = ["train", "iterated-clip", "--data", photos, *SMALL, *quick]
    assert main([*common, "--output", str(output), *steps, *codes]) == 0
    config = AutoModel.from_pretrained(output).config
    assert (config.codebook_size, config.temperature, config.generation, config.generation_steps) == (40, 3, 2, 4)
    assert config.warmup_steps == 0  # a twelfth of a generation, not a tenth of the run
    recorded = yaml.safe_load((output / "train.yaml").read_text())
    assert (recorded["codebook_size"], recorded["temperature"]) == (40, 3)
    # New agents of another seed are drawn with it, unless their own was given.
    assert "spawn_seed" not in recorded and "num_train_epochs" not in recorded
    settings = IteratedCLIPTrainingArguments(str(tmp_path / "s"), num_generations=2, generation_steps=4, spawn_seed=7)
    assert training_settings(settings)["spawn_seed"] == 7
    plain = ["--no-use-codebook", "--num_generations", "1", "--generation_steps", "2"]
    assert main([*common, "--output", str(tmp_path / "plain"), *plain]) == 0
    assert not AutoModel.from_pretrained(tmp_path / "plain").config.use_codebook
    capsys.readouterr()
    assert main([*common, "--output", str(tmp_path / "bad"), "--codebook-size", "1"]) == 2
    assert "codebook_size=1 must be at least 2" in capsys.readouterr().err
    wrong = [
        "train",
        "iterated-clip",
        "--data",
        photos,
        "--model",
        str(output),
        "--output",
        "o",
        "--codebook-size",
        "9",
    ]
    assert main(wrong) == 2
    assert "--codebook-size goes with --from-scratch" in capsys.readouterr().err
    for option, value in (("--codebook-size", "9"), ("--temperature", "3")):
        assert main([*common, "--output", "o", "--no-use-codebook", option, value]) == 2
        assert f"{option} goes with a codebook" in capsys.readouterr().err


def test_each_generation_leaves_a_checkpoint(photos, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = ["--data", photos, "--output", str(output), *SMALL, "--batch-size", "8", "--use_cpu"]
    steps = ["--num_generations", "4", "--generation_steps", "2", "--codebook-size", "16"]
    assert main(["train", "iterated-clip", *arguments, *steps]) == 0
    assert sorted(path.name for path in output.glob("checkpoint-*")) == [f"checkpoint-{step}" for step in (2, 4, 6, 8)]
    rows = len(load_captioned(photos))
    said = f"4 generations of 2 steps: {8 * 8 / rows:.1f} passes over {rows} rows"
    assert said in capsys.readouterr().out
    assert "num_train_epochs" not in yaml.safe_load((output / "train.yaml").read_text())
    for option in (["--epochs", "2"], ["--num_train_epochs", "2"], ["--lora", "4"]):
        assert main(["train", "iterated-clip", *arguments, *steps, *option]) == 2
        assert option[0].lstrip("-") in capsys.readouterr().err
    # Another run in the same folder would be mixed with this one.
    assert main(["train", "iterated-clip", *arguments, *steps]) == 2
    assert "holds checkpoints of another run (checkpoint-2 and so on)" in capsys.readouterr().err
    assert main(["train", "iterated-clip", *arguments, *steps, "--resume_from_checkpoint", "last"]) == 0
    capsys.readouterr()
    config = tmp_path / "run.yaml"
    config.write_text("epochs: 5\n")
    assert main(["train", "iterated-clip", *arguments, *steps, "--config", str(config)]) == 2
    assert "key 'epochs' is not known" in capsys.readouterr().err


def test_streamed_rows_come_in_another_order_in_each_epoch(photos, tmp_path, clip_checkpoint, monkeypatch):
    seen = []
    load_captioned(photos).to_parquet(tmp_path / "rows.parquet")
    real = ContrastiveCollator.__call__

    def noted(self, rows):
        seen.extend(row["caption"] for row in rows)
        return real(self, rows)

    monkeypatch.setattr(ContrastiveCollator, "__call__", noted)

    rows = load_captioned(photos)["caption"][:]
    steps = str(-(-2 * len(rows) // 8))

    def epochs(name, *options):
        seen.clear()
        data = ["--data", str(tmp_path / "rows.parquet"), "--streaming", "--model", str(clip_checkpoint)]
        run = ["--output", str(tmp_path / name), *QUICK, "--max-steps", steps, "--seed", "5"]
        assert main(["train", "clip", *data, *run, *options]) == 0
        return seen[: len(rows)], seen[len(rows) : 2 * len(rows)]

    first, second = epochs("a")
    assert sorted(first) == sorted(second) == sorted(rows) and rows != first != second != rows
    assert epochs("b") == (first, second)  # from the seed
    assert epochs("c", "--shuffle-buffer", "1") == (rows, rows)


def test_fine_tuning_with_lora_and_a_validation_split(photos, clip_checkpoint, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = ["--data", photos, "--model", str(clip_checkpoint), "--output", str(output), *QUICK]
    more = ["--lora", "4", "--mini-batch-size", "4", "--validation-fraction", "0.2", "--eval_strategy", "steps"]
    best = ["--eval_steps", "1", "--save_steps", "1", "--load_best_model_at_end", "true"]
    metric = ["--metric_for_best_model", "validation/text_to_image/recall@1", "--eval-data", photos]
    assert main(["train", "clip", *arguments, *more, *best, *metric]) == 0
    assert "eval_validation/text_to_image/recall@1" in capsys.readouterr().out
    assert (output / "adapter" / "adapter_model.safetensors").is_file()
    AutoModel.from_pretrained(output)


def test_config_file_and_command_line(photos, clip_checkpoint, tmp_path):
    settings = {
        "data": photos,
        "model": str(clip_checkpoint),
        "output": str(tmp_path / "from_file"),
        "batch-size": 8,
        "max_steps": 3,
        "learning_rate": "1e-3",
        "weight_decay": 0.5,
        "freeze": "vision",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    output = tmp_path / "from_line"
    line = ["--config", str(tmp_path / "run.yaml"), "--output", str(output), "--weight-decay", "0.25"]
    assert main(["train", "clip", *line, "--max-steps", "1"]) == 0
    assert not (tmp_path / "from_file").exists()
    recorded = yaml.safe_load((output / "train.yaml").read_text())
    assert recorded["max_steps"] == 1
    assert recorded["weight_decay"] == 0.25
    assert recorded["learning_rate"] == 1e-3
    assert recorded["freeze"] == "vision"
    # What was recorded is a config file that gives the same run.
    again = ["--config", str(output / "train.yaml"), "--output", str(tmp_path / "again"), "--use_cpu"]
    assert main(["train", "clip", *again, "--disable_tqdm", "true"]) == 0


def test_what_is_the_default_of_the_class_and_not_of_the_command_is_recorded(photos, tmp_path):
    output = tmp_path / "run"
    chosen = ["--adam_beta2", "0.999", "--adam_epsilon", "1e-8", "--warmup_steps", "0", "--logging_steps", "500"]
    assert main(["train", "clip", "--data", photos, "--output", str(output), *SMALL, *QUICK, *chosen]) == 0
    recorded = yaml.safe_load((output / "train.yaml").read_text())
    assert (recorded["adam_beta2"], recorded["adam_epsilon"], recorded["warmup_steps"]) == (0.999, 1e-8, 0)
    again = tmp_path / "again"
    assert main(["train", "clip", "--config", str(output / "train.yaml"), "--output", str(again), "--use_cpu"]) == 0
    assert yaml.safe_load((again / "train.yaml").read_text()) == {**recorded, "output": str(again)}


def test_resuming_from_the_last_checkpoint(photos, tmp_path, capsys):
    common = ["train", "clip", "--data", photos, "--output", str(tmp_path), *SMALL, *QUICK, "--save_steps", "1"]
    assert main([*common, "--resume_from_checkpoint", "last"]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err
    assert main(common) == 0
    assert main([*common, "--max_steps", "3", "--resume_from_checkpoint", "last"]) == 0
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "o", "--model", "m"], "--data is missing"),
        (["--data", "d", "--model", "m"], "--output is missing"),
        (["--data", "d", "--output", "o"], "--model CHECKPOINT or --from-scratch"),
        (["--data", "d", "--output", "o", "--model", "m", "--from-scratch", "small"], "either"),
        (["--data", "d", "--output", "o", "--model", "m", "--test-fraction", "0.1", "--eval-data", "e"], "exclude"),
        (["--data", "d", "--output", "o", "--model", "m", "--lerning_rate", "1"], "did you mean --learning"),
        (["--data", "d", "--output", "o", "--model", "m", "stray"], "'stray' is not known"),
        (["--data", "d", "--output", "o", "--model", "m", "--weight_decay", "much"], "weight_decay"),
        (["--data", "d", "--output", "o", "--model", "m", "--freeze", "all"], "freeze='all'"),
        (["--data", "d", "--output", "file/run", "--model", "m"], "cannot be written"),
        (["--data", "d", "--output", "o", "--model", "m", "--eval-tasks", "scenes/swop_object"], "swap_object"),
        (["--data", "no/such/place", "--output", "o", "--model", "m"], "no/such/place"),
        (["--data", "PHOTOS", "--output", "o", "--model", "m", "--width", "8"], "--width goes with --from-scratch"),
        (["--data", "PHOTOS", "--output", "o", "--from-scratch", "small", "--patch-size", "7"], "patch_size=7"),
        (["--data", "PHOTOS", "--output", "o", "--model", "./missing"], "missing"),
        (["--data", "PHOTOS", "--output", "o", "--model", "m", "--streaming", "--test-fraction", "0.1"], "streamed"),
        (["--config", "missing.yaml"], "missing.yaml cannot be read"),
        (["--config", "broken.yaml"], "is not YAML"),
        (["--config", "list.yaml"], "must hold"),
        (["--config", "typo.yaml"], "key 'bach_size' is not known; did you mean batch_size"),
        (["--config", "words.yaml"], "lora: 'four' is not a whole number"),
        (["--config", "maybe.yaml"], "streaming: 'maybe' is not true or false"),
        (["--data", "d", "--output", "o", "--model", "m", "--device", "cuda:0"], "CUDA_VISIBLE_DEVICES"),
        (["--data", "d", "--output", "o", "--model", "m", "--group-by", "caption"], "--group-by is about splitting"),
        (["--data", "d", "--output", "o", "--model", "m", "--split-seed", "0"], "--split-seed is about splitting"),
        (["--data", "d", "--output", "o", "--model", "m", "--validation-fraction", "2"], "--validation-fraction 2.0"),
        (["--data", "d", "--output", "o", "--model", "m", "--validation-fraction", "0.2"], "--eval_strategy epoch"),
        (["--data", "d", "--output", "o", "--model", "m", "--eval_strategy", "epoch"], "give --validation-fraction"),
        (["--data", "d", "--output", "o", "--model", "m", "--streaming"], "--streaming needs --max-steps"),
        (["--data", "d", "--output", "o", "--model", "m", "--shuffle-buffer", "9"], "--shuffle-buffer is about"),
        (["--data", "d", "--output", "o", "--model", "m", "--eval-tasks", "retrieval"], "--eval-data"),
        (["--data", "d", "--output", "o", "--model", "m", "--eval-tasks", "image_choice"], "run `vlcomp evaluate`"),
        (["--data", "d", "--output", "o", "--from-scratch", "small", "--layers", "0"], "--layers 0"),
        (["--data", "d", "--output", "o", "--model", "m", "--max-steps", "0"], "max_steps=0"),
        (["--data", "PHOTOS", "--output", "o", "--model", "m", "--image-column", "foo"], "no column 'foo'"),
        (["--data", "PHOTOS", "--output", "o", "--model", "m", "--test-fraction", "0.001"], "only one image"),
        (["--data", "torn", "--output", "o", "--model", "m"], "1 picture of torn cannot be read"),
        (["--data", "PHOTOS", "--output", "o", "--model", "m", "--eval-data", "torn"], "1 picture of torn"),
    ],
)
def test_mistakes_are_one_line(photos, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.yaml").write_text("a: [1\nb: 2")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "typo.yaml").write_text("bach_size: 3\n")
    (tmp_path / "words.yaml").write_text("lora: four\n")
    (tmp_path / "maybe.yaml").write_text("streaming: maybe\n")
    make_captioned_folder(tmp_path / "torn", n=3)
    torn = tmp_path / "torn" / "0001.png"
    torn.write_bytes(torn.read_bytes()[:60])
    assert main(["train", "clip", *[photos if value == "PHOTOS" else value for value in arguments]]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "clip", "--help"])
    assert stop.value.code == 0
    assert "vlcomp train clip --data photos/" in capsys.readouterr().out


def test_one_setting_under_two_names(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "clip", "--batch-size", "8", "--per_device_train_batch_size=4"])
    assert stop.value.code == 2
    assert "--batch-size and --per_device_train_batch_size are one setting" in capsys.readouterr().err


@pytest.mark.parametrize("lora", [[], ["--lora", "2"]])
def test_the_console_shows_nothing_to_ignore(photos, siglip_checkpoint, tmp_path, capsys, lora):
    arguments = ["--data", photos, "--model", str(siglip_checkpoint), "--output", str(tmp_path), "--max-steps", "1"]
    assert main(["train", "clip", *arguments, *lora, "--batch-size", "8", "--use_cpu", "--eval-data", photos]) == 0
    assert capsys.readouterr().err == ""


def test_hard_negatives_and_what_is_recorded_of_them(photos, tmp_path, capsys):
    output = tmp_path / "out"
    line = ["train", "imc-cmr", "--data", photos, "--output", str(output), *SMALL, *QUICK]
    extra = ["--generate_negatives", "paper", "--negative_types", "object", "attribute", "--cmr_weight", "0.5"]
    assert main([*line, *extra, "--interpolate", "0.5"]) == 0
    recorded = yaml.safe_load((output / "train.yaml").read_text())
    assert recorded["negative_types"] == ["object", "attribute"] and recorded["generate_negatives"] == "paper"
    assert (recorded["cmr_weight"], recorded["interpolate"]) == (0.5, 0.5)
    again = ["--config", str(output / "train.yaml"), "--output", str(tmp_path / "again"), "--use_cpu"]
    assert main(["train", "imc-cmr", *again]) == 0
    second = yaml.safe_load((tmp_path / "again" / "train.yaml").read_text())
    assert {k: v for k, v in second.items() if k != "output"} == {k: v for k, v in recorded.items() if k != "output"}
    capsys.readouterr()
    assert main([*line, "--objective", "both"]) == 2
    assert "objective='both' is not one of" in capsys.readouterr().err
    assert main(line) == 2
    assert "vlcomp negatives" in capsys.readouterr().err
