"""Publishing what a trainer trained: our card, the settings and the results, and nothing of the machine."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from transformers import Trainer
from transformers.trainer_utils import HubStrategy

from ..errors import ArgumentError
from ..evaluation import Report
from ..hub.cards import model_card
from ..hub.folder import CARD_FILE, TRAINING_FILE
from ..hub.push import HubError, check_access, hub_errors, push_folder

_ALWAYS = ("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "weight_decay", "seed")
_OF_THE_MACHINE = ("output_dir", "logging_dir", "run_name", "resume_from_checkpoint", "disable_tqdm", "use_cpu")
_OF_THE_HUB = ("push_to_hub", "hub_", "report_to")


class PublishingTrainer(Trainer):
    """A `Trainer` whose `push_to_hub` publishes what [`~vlcomp.push_to_hub`] publishes.

    That of transformers uploads the output folder as it is, with a pickle of the arguments in which paths of the
    machine stand.
    """

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository that `push_to_hub` needs; see `transformers.Trainer.init_hf_repo`."""
        name = self.args.hub_model_id or Path(self.args.output_dir).name
        try:
            check_access(token or self.args.hub_token)
            with hub_errors(name, constants.ENDPOINT):
                super().init_hf_repo(token, private)
        except HubError as error:
            raise ArgumentError(f"push_to_hub: {error}, or leave push_to_hub out") from error

    def create_model_card(
        self,
        license: str | None = None,
        report: Report | None = None,
        base_report: Report | None = None,
        **kwargs: Any,
    ) -> None:
        """Write our card and `train.yaml` into the output folder, which holds the saved model.

        Args:
            license (`str`, *optional*):
                Licence of the weights, as an identifier of the Hub.
            report ([`~vlcomp.evaluation.Report`], *optional*):
                Measurements of the model.
            base_report ([`~vlcomp.evaluation.Report`], *optional*):
                The same tasks on the model that training started from.
            **kwargs:
                Taken for the sake of `transformers.Trainer.create_model_card`; a name that our card has no place for
                is refused.

        Raises:
            ArgumentError: for such a name.
        """
        unknown = sorted(
            key for key, value in kwargs.items() if value is not None and key not in ("model_name", "tags")
        )
        if unknown:
            raise ArgumentError(
                f"{unknown[0]}={kwargs[unknown[0]]!r} has no place in the card; it takes license, report, base_report"
            )
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        self._write_settings(folder)
        name = self.hub_model_id or self.args.hub_model_id or folder.absolute().name
        text = model_card(folder, str(name), report=report, base=base_report, license=license)
        (folder / CARD_FILE).write_text(text, encoding="utf-8")

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        license: str | None = None,
        report: Report | None = None,
        base_report: Report | None = None,
        **kwargs: Any,
    ) -> str | None:
        """Publish model, processor, card, results and settings on `args.hub_model_id`.

        Args:
            commit_message (`str`):
                Message of the commit.
            blocking (`bool`, defaults to `True`):
                Must be `True`: what is published is written first and removed afterwards.
            token, revision, private, license, report, base_report:
                As in [`~vlcomp.push_to_hub`].
            **kwargs:
                As in [`create_model_card`].

        Returns:
            `str`: address of the commit; `None` on processes other than the first.

        Raises:
            VlcompError: as [`~vlcomp.push_to_hub`].
        """
        if not blocking:
            raise ArgumentError("blocking=False is not possible: leave it out")
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.create_model_card(license=license, report=report, base_report=base_report, **kwargs)
        return self._publish(
            commit_message or "End of training",
            token=token,
            revision=revision,
            private=private,
            license=license,
            report=report,
            base_report=base_report,
        )

    def _publish(self, commit_message: str, **options: Any) -> str:
        options["token"] = options.get("token") or self.args.hub_token
        options["revision"] = options.get("revision") or self.args.hub_revision
        # Only the saved model: an evaluation that lies in the output folder may be of earlier weights.
        with tempfile.TemporaryDirectory() as place:
            for path in Path(self.args.output_dir).iterdir():
                if path.is_file() or path.name == "adapter":
                    Path(place, path.name).symlink_to(path.absolute())
            return push_folder(place, str(self.hub_model_id), commit_message=commit_message, **options).address

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Publish a checkpoint while training goes on (`hub_strategy="every_save"`)."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if self.args.hub_strategy != HubStrategy.EVERY_SAVE:
            raise ArgumentError(
                f"hub_strategy={self.args.hub_strategy.value!r} would publish optimiser states; use 'every_save' or "
                "'end'"
            )
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._write_settings(Path(checkpoint_folder))
        push_folder(
            checkpoint_folder,
            str(self.hub_model_id),
            commit_message=f"Training in progress, step {self.state.global_step}",
            token=self.args.hub_token,
            revision=self.args.hub_revision,
        )

    def _write_settings(self, folder: Path) -> None:
        """Write the settings that differ from their defaults, in the form of a config file of `vlcomp train`."""
        import yaml

        text = yaml.safe_dump({**training_settings(self.args), **self._start_and_data()}, allow_unicode=True)
        (folder / TRAINING_FILE).write_text(text, encoding="utf-8")

    def _start_and_data(self) -> dict[str, str]:
        found = {}
        start = getattr(getattr(self.model, "config", None), "name_or_path", "") or ""
        if start:
            found["model"] = start
        return found


def training_settings(args: Any, always: Collection[str] = _ALWAYS) -> dict[str, Any]:
    """Settings that differ from their defaults, and those that always matter.

    Args:
        args (`TrainingArguments`):
            The settings.
        always (`Collection[str]`):
            Names of the latter.

    Returns:
        `dict[str, Any]`: numbers, texts and lists of texts; nothing that belongs to a machine or an account.
    """
    found = {}
    for field in fields(args):
        value = getattr(args, field.name)
        value = getattr(value, "value", value)  # of an enumeration
        texts = isinstance(value, list) and bool(value) and all(isinstance(entry, str) for entry in value)
        simple = isinstance(value, (bool, int, float, str)) or texts
        default = getattr(field.default, "value", field.default)
        known = field.init and simple and not field.name.startswith("_") and field.name not in _OF_THE_MACHINE
        if not known or field.name.startswith(_OF_THE_HUB) or field.name.endswith("_token"):
            continue
        if field.name in always or value != default:
            found[field.name] = value
    # A seed of its own that was not given is the seed: another one then belongs to another seed.
    if found.get("spawn_seed") == args.seed:
        del found["spawn_seed"]
    if args.max_steps > 0:
        found.pop("num_train_epochs", None)  # not what the run went by
    return found
