"""Publishing on the Hugging Face Hub: models with their card and results, and generated negatives."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)

from ..errors import ArgumentError, DataError, VlcompError
from ..evaluation.results import Report
from .folder import EVALUATION_FOLDER, NEGATIVES_FILE, TRAINING_FILE, WEIGHTS, Staged, stage_dataset, stage_model


class HubError(VlcompError):
    """The Hub cannot be reached, or does not accept what was asked for."""


def push_to_hub(
    model: Any,
    processor: Any,
    repo_id: str,
    *,
    report: Report | str | os.PathLike[str] | None = None,
    base_report: Report | str | os.PathLike[str] | None = None,
    license: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload model with vlcomp",
    dry_run: str | os.PathLike[str] | None = None,
) -> str:
    """Publish a model with its processor, card, results and, for models of this package, code.

    `model.push_to_hub()` stays what transformers makes it: weights and configuration alone.

    Args:
        model (`PreTrainedModel`):
            The model.
        processor (`ProcessorMixin`):
            Its processor.
        repo_id (`str`):
            `owner/name`; made if it does not exist.
        report ([`~vlcomp.evaluation.Report`] or path, *optional*):
            What [`~vlcomp.evaluate`] measured on it; goes into the card.
        base_report ([`~vlcomp.evaluation.Report`] or path, *optional*):
            The same tasks on the model that training started from: the card then says what got worse.
        license (`str`, *optional*):
            Licence of the weights, as an identifier of the Hub such as `apache-2.0`. Not stated if not given.
        private (`bool`, *optional*):
            Whether a new repository is private; by default as the account is set.
        revision (`str`, *optional*):
            Branch to write to, made if it does not exist; `main` if not given.
        token (`str`, *optional*):
            Token of the Hub; that of `hf auth login` or `HF_TOKEN` if not given.
        commit_message (`str`):
            Message of the commit.
        dry_run (`str` or `os.PathLike`, *optional*):
            Write exactly what would be pushed to this folder instead, and touch no network.

    Returns:
        `str`: address of the commit, or the folder of a dry run.

    Raises:
        ArgumentError: for a bad name or a report of another model.
        CheckpointError: if weights are not finite.
        DataError: if something that would be published holds a secret or an absolute path.
        HubError: without a token or a network, or if the Hub refuses.

    Example:
        >>> import os, tempfile
        >>> import vlcomp
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> folder = vlcomp.push_to_hub(tiny_clip(), tiny_processor(), "ann/tiny", dry_run=tempfile.mkdtemp())
        >>> sorted(os.listdir(folder))[:3]
        ['README.md', 'config.json', 'model.safetensors']
    """
    if hasattr(model, "merge_and_unload"):
        raise ArgumentError("model is a PeftModel; pass model.merge_and_unload(), or use trainer.push_to_hub()")
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise ArgumentError(
            f"processor={type(processor).__name__} is not a processor of images and texts; pass what "
            "AutoProcessor.from_pretrained gives"
        )
    _check_name(repo_id)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return push_folder(
            folder,
            repo_id,
            report=report,
            base_report=base_report,
            license=license,
            private=private,
            revision=revision,
            token=token,
            commit_message=commit_message,
            dry_run=dry_run,
        ).address


@dataclass(frozen=True)
class Pushed(Staged):
    """What was published.

    Args:
        folder, files, left_out:
            As in [`Staged`]; the folder of a real push was temporary.
        address (`str`):
            Address of the commit, or the folder of a dry run.
    """

    address: str


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    dataset: bool = False,
    report: Report | str | os.PathLike[str] | None = None,
    base_report: Report | str | os.PathLike[str] | None = None,
    license: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload with vlcomp",
    dry_run: str | os.PathLike[str] | None = None,
) -> Pushed:
    """Publish a checkpoint, or a folder of `vlcomp negatives`.

    Args:
        folder (`str` or `os.PathLike`):
            Checkpoint with its processor, as `vlcomp train` writes it; or negatives.
        repo_id (`str`):
            `owner/name`; made if it does not exist.
        dataset (`bool`, defaults to `False`):
            Whether the folder holds negatives, to be published as a data set.
        report, base_report, license, private, revision, token, commit_message, dry_run:
            As in [`push_to_hub`]; without `report`, that in the folder's `evaluation` is used if there is one. A data
            set needs a `license` and takes no report.

    Returns:
        [`Pushed`]: files, what was left out, and the address of the commit (of the folder, for a dry run).

    Raises:
        VlcompError: as [`push_to_hub`].
    """
    _check_name(repo_id)
    source = Path(folder)
    if dataset:
        if report is not None or base_report is not None:
            raise ArgumentError("report belongs to a model; a data set takes none")
        if not license:
            raise ArgumentError(
                "license is needed for a data set: negatives are changed copies of captions, so name the licence of "
                "the captions (such as cc-by-4.0)"
            )
    else:
        report, base_report = _as_report(report), _as_report(base_report)
        if base_report is not None and report is None and not (source / EVALUATION_FOLDER).is_dir():
            raise ArgumentError("base_report is compared with report; give that too, or leave it out")

    def stage(target: Path, link: bool) -> Staged:
        if dataset:
            return stage_dataset(source, target, repo_id, license=str(license), link=link)
        return stage_model(source, target, repo_id, report=report, base=base_report, license=license, link=link)

    if dry_run is not None:
        staged = stage(Path(dry_run), link=False)
        return Pushed(staged.folder, staged.files, staged.left_out, str(dry_run))
    if source.is_dir():
        check_access(token)  # before the weights are read
    with tempfile.TemporaryDirectory() as target:
        staged = stage(Path(target), link=True)
        address = _upload(
            staged,
            repo_id,
            "dataset" if dataset else "model",
            private=private,
            revision=revision,
            token=token,
            commit_message=commit_message,
        )
        return Pushed(staged.folder, staged.files, staged.left_out, address)


def check_access(token: str | None = None) -> None:
    """See that there is a token and that the Hub may be asked, before anything is prepared.

    Args:
        token (`str`, *optional*):
            Token of the Hub; that of `hf auth login` or `HF_TOKEN` if not given.

    Raises:
        HubError: if there is no token, or the Hub is switched off.
    """
    if constants.is_offline_mode():
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it, or see the result with --dry-run")
    if not (token or get_token()):
        raise HubError("there is no token of the Hugging Face Hub; log in with `hf auth login`, or set HF_TOKEN")


def _upload(
    staged: Staged,
    repo_id: str,
    repo_type: str,
    *,
    private: bool | None,
    revision: str | None,
    token: str | None,
    commit_message: str,
) -> str:
    check_access(token)
    api = HfApi(library_name="vlcomp", token=token)
    with hub_errors(repo_id, api.endpoint):
        before = _existing(api, repo_id, repo_type)
        if before is None:
            api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        else:
            if private and not before.private:
                raise HubError(f"{repo_id} exists already and is public; make it private in its settings on the Hub")
            _check_same_kind(api, repo_id, repo_type, staged.folder)
        if revision is not None and revision != constants.DEFAULT_REVISION:
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        with _quiet_without_terminal():
            commit = api.upload_folder(
                repo_id=repo_id,
                repo_type=repo_type,
                folder_path=staged.folder,
                revision=revision,
                commit_message=commit_message,
                # Weights of an earlier push in other parts would be loaded beside the new ones.
                delete_patterns=None if before is None else [*WEIGHTS, TRAINING_FILE, f"{EVALUATION_FOLDER}/*"],
            )
    return str(commit.commit_url)


def _existing(api: HfApi, repo_id: str, repo_type: str) -> Any:
    try:
        return api.repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        return None


def _check_same_kind(api: HfApi, repo_id: str, repo_type: str, folder: Path) -> None:
    """Refuse to write over a repository that holds something else."""
    name, key = ("config.json", "model_type") if repo_type == "model" else (NEGATIVES_FILE, "rules_version")
    files = set(api.list_repo_files(repo_id, repo_type=repo_type)) - {".gitattributes", "README.md"}
    own = folder / name
    if not files or not own.is_file():
        return
    there: Any = None
    if name in files:
        try:
            there = json.loads(Path(api.hf_hub_download(repo_id, name, repo_type=repo_type)).read_text("utf-8")).get(
                key
            )
        except (EntryNotFoundError, ValueError):
            pass
    here = json.loads(own.read_text(encoding="utf-8")).get(key)
    if there is None or (repo_type == "model" and there != here):
        what = f"a {there!r} model" if there else f"other files ({sorted(files)[0]})"
        raise HubError(f"{repo_id} is taken: it holds {what}, which a push would mix with; give another name")


@contextmanager
def hub_errors(repo_id: str, endpoint: str) -> Iterator[None]:
    """Say in one line what the Hub, or the way to it, did not allow.

    Args:
        repo_id (`str`):
            Repository, for the message.
        endpoint (`str`):
            Address of the Hub, for the message.

    Raises:
        HubError: in place of the errors of the client and its connections.
    """
    try:
        yield
    except VlcompError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it") from error
    except HfHubHTTPError as error:
        raise HubError(_refusal(error, repo_id, endpoint)) from error
    except RuntimeError as error:
        # An upload in parts names the part and keeps the cause.
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise HubError(_refusal(cause, repo_id, endpoint)) from error
        raise HubError(f"the upload to {repo_id} failed: {_one_line(error)}") from error
    # The client's connection errors are those of its HTTP library, which has changed before.
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            if not isinstance(error, (OSError, ValueError)):
                raise
            raise HubError(f"the push to {repo_id} failed: {_one_line(error)}") from error
        raise HubError(
            f"the Hub at {endpoint} cannot be reached ({_one_line(error)}); check the network, or HF_ENDPOINT if it "
            "is set"
        ) from error


def _refusal(error: HfHubHTTPError, repo_id: str, endpoint: str) -> str:
    response = error.response
    status = getattr(response, "status_code", None)
    if status == 401:
        return f"the Hub at {endpoint} does not accept the token; log in again with `hf auth login`, or renew HF_TOKEN"
    if status == 403:
        owner = repo_id.split("/")[0]
        return (
            f"{repo_id} is not yours to write: the name {owner!r} belongs to another account or organisation, or the "
            "token may only read; push to your own name, with a token that may write"
        )
    if status == 409:
        return f"{repo_id} is taken; give another name"
    reason = getattr(error, "server_message", None) or _one_line(error)
    return f"the Hub at {endpoint} refused the push to {repo_id} (status {status}): {reason}"


def _one_line(error: BaseException) -> str:
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ArgumentError(f"repo_id={repo_id!r} is not a name on the Hub: {_one_line(error)}") from error
    if repo_id.count("/") != 1:
        raise ArgumentError(f"repo_id={repo_id!r} must be owner/name, such as your-name/{repo_id}")


def _as_report(report: Report | str | os.PathLike[str] | None) -> Report | None:
    if report is None or isinstance(report, Report):
        return report
    if not isinstance(report, (str, os.PathLike)):
        raise ArgumentError(f"report={report!r} must be a Report or the folder of one")
    place = Path(report)
    # A folder of a run that holds the report one level down.
    inner = place / EVALUATION_FOLDER
    try:
        return Report.load(inner if place.is_dir() and not (place / "results.json").is_file() else place)
    except DataError as error:
        raise DataError(f"report: {error}") from error


@contextmanager
def _quiet_without_terminal() -> Iterator[None]:
    """No bars in a log file."""
    switch = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if switch:
        disable_progress_bars()
    try:
        yield
    finally:
        if switch:
            enable_progress_bars()
