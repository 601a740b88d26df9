"""Profiles on a hub: two files of one commit come down, three go up. Nothing else is read, and nothing is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ProfileError
from ..profile import JSON_NAME, TENSORS_NAME, Profile
from ..text import one_line

CARD_NAME = "README.md"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 20.0  # seconds


def download(place: str) -> Profile:
    """The profile of a hub id ``user/name[@revision]``, from the commit that the revision has now.

    Only ``profile.json`` and ``bridges.safetensors`` are asked for. A whole commit as the revision, once downloaded,
    needs no network.

    Raises
    ------
    ProfileError
        No such repository, revision or file, no answer, an incomplete download, or a profile that is refused.
    """
    from huggingface_hub import hf_hub_download

    repo, _, revision = place.partition("@")
    with _told(f"no profile in {place}: there is no such folder here, and"):
        commit = revision if _COMMIT.fullmatch(revision) else _commit(repo, revision or None)
        files = [
            hf_hub_download(repo, name, revision=commit, tqdm_class=_silent()) for name in (JSON_NAME, TENSORS_NAME)
        ]
    folders = {Path(file).parent for file in files}
    if others := {folder.name for folder in folders} - {commit}:
        raise ProfileError(f"the hub answered for commit {others.pop()} and not for {commit} of {repo}")
    return Profile.load(folders.pop()).replace(source=f"{repo}@{commit}", revision=commit)


def _commit(repo: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    commit = HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT).sha
    if not _COMMIT.fullmatch(commit or ""):
        raise ProfileError(f"the hub names no commit of {repo}, so that nothing can be pinned")
    return str(commit)


@dataclass(frozen=True)
class Pushed:
    """Where a profile went.

    Attributes
    ----------
    place : str
        Hub id with the commit, as every option takes it.
    private : bool
        Whether only its owner sees it.
    """

    place: str
    private: bool


def push(profile: Profile, repo: str, card: str, *, public: bool = False) -> Pushed:
    """Upload a profile and its card, three files in one commit.

    Raises
    ------
    ProfileError
        Not a hub id, no right to write there, no answer, or a repository that is public when ``public`` is not given.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo, re.ASCII):
        raise ProfileError(f"{repo!r} is not a hub id; give user/name")
    content = {
        JSON_NAME: (profile.folder / JSON_NAME).read_bytes(),
        TENSORS_NAME: (profile.folder / TENSORS_NAME).read_bytes(),
        CARD_NAME: card.encode(),
    }
    with _told(f"cannot push to {repo}:"):
        api = HfApi()
        api.create_repo(repo, private=not public, exist_ok=True)
        private = bool(api.model_info(repo, timeout=_TIMEOUT).private)
        if not private and not public:
            raise ProfileError(f"{repo} is public already; add --public to publish the profile there")
        operations: list[Any] = [CommitOperationAdd(name, data) for name, data in content.items()]
        commit = api.create_commit(repo, operations, commit_message=f"Profile {profile.digest}").oid
    return Pushed(f"{repo}@{commit}", private)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What the hub's library raises, as one line."""
    from huggingface_hub import constants, errors

    hub = f"the hub at {constants.ENDPOINT}"
    reasons: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
        (
            (errors.OfflineModeIsEnabled,),
            "HF_HUB_OFFLINE is set; give a commit that was downloaded before, user/name@COMMIT, or unset it",
        ),
        ((errors.GatedRepoError,), f"{hub} wants you to ask for access on its page first"),
        ((errors.RepositoryNotFoundError,), f"{hub} has no such repository, or you may not see it (hf auth login)"),
        ((errors.RevisionNotFoundError,), f"{hub} has no such revision"),
        ((errors.RemoteEntryNotFoundError,), f"its repository on {hub} has no {JSON_NAME} and {TENSORS_NAME}"),
    )
    try:
        yield
    except ProfileError:
        raise
    except errors.LocalEntryNotFoundError as error:
        why = reasons[0][1] if constants.HF_HUB_OFFLINE else f"{hub} does not give its files: {one_line(error)}"
        raise ProfileError(f"{what} {why}") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, _http_error(), OSError, ValueError) as error:
        for kinds, why in reasons:
            if isinstance(error, kinds):
                raise ProfileError(f"{what} {why}") from error
        raise ProfileError(f"{what} {hub} cannot be used: {type(error).__name__}: {one_line(error, 200)}") from error


def _http_error() -> type[Exception]:
    """What the library that the hub's client stands on raises without an answer."""
    from huggingface_hub import errors

    found: type[Exception] = getattr(errors, "HTTPError", OSError)
    return found


def _silent() -> Any:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined, unused-ignore]

    class Silent(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call, unused-ignore]

    return Silent
