"""Upload an artifact to a hub: its files, of which the card is the repository's page."""

from __future__ import annotations

from safety_harness.errors import ArtifactError
from safety_harness.patch.folder import BOM, CARD, MANIFEST, ORIGINAL, PATCH, SUMS, Artifact


def upload(artifact: Artifact, repository: str, *, public: bool = False) -> str:
    """Commit the artifact's files, and no others, to *repository* (``owner/name``), which is made if it is missing.

    Returns:
        The URL of the commit.

    Raises:
        ArtifactError: the hub refuses it, or cannot be reached.
    """
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=not public, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repository,
            folder_path=artifact.folder,
            allow_patterns=[MANIFEST, PATCH, ORIGINAL, CARD, BOM, SUMS],
            # The numbers of an earlier patch would be in no checksum.
            delete_patterns=None if artifact.original else [ORIGINAL],
            commit_message=f"Safety patch for {artifact.manifest.search.student}",
        )
    except Exception as error:  # the client passes on the errors of its transports, which share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            f"{repository}: the hub did not take it ({reason}). Check the name, your network and your access (`hf auth "
            "login`)."
        ) from error
    return str(done.commit_url)
