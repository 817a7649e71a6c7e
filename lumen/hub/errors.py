"""What can go wrong with model files. Each message says what happened and what to do next.

HubError
├── BadReferenceError     the reference cannot be read
├── MissingError          the repository, revision or file does not exist
├── AccessError           the hub wants a token, or refuses the one it got
├── NetworkError          the server cannot be reached or broke off more often than is patient
├── DigestError           the bytes are not the ones that were promised
├── SpaceError            the disk is too small
├── BusyError             another download of the same file does not get on
└── BadModelFileError     the file is not a GGUF model, or a damaged one
"""

from __future__ import annotations

from lumen.core.errors import LumenError


class HubError(LumenError):
    """Base of all errors about model files."""

    code = "model_files"


class BadReferenceError(HubError):
    status = 400
    type = "invalid_request_error"
    code = "bad_reference"


class MissingError(HubError):
    status = 404
    code = "model_files_missing"


class AccessError(HubError):
    status = 403
    code = "hub_access_denied"


class NetworkError(HubError):
    status = 502
    code = "hub_unreachable"


class DigestError(HubError):
    status = 502
    code = "digest_mismatch"


class SpaceError(HubError):
    status = 507
    code = "disk_full"


class BusyError(HubError):
    status = 409
    code = "download_busy"


class BadModelFileError(HubError):
    status = 422
    code = "bad_model_file"
