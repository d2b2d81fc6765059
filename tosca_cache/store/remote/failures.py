"""Failures of remote file systems: what kind each is, whether it may pass, and what to do about it.

Every library has errors of its own; they are told apart by the names of their classes and the codes that servers send, so
that none of the libraries has to be imported for it.
"""

from __future__ import annotations

import errno
from enum import Enum

from tosca_cache.errors import StoreError
from tosca_cache.store.remote.url import Url

EXTRAS = {"s3": "s3", "gs": "gcs"}


class Kind(Enum):
    """What went wrong: its value is what a message says of it, and what it tells the user to do."""

    MISSING = ("There is nothing here.", "See `tosca cache ls` for the stores there are.")
    BUCKET = ("This bucket does not exist.", "Make the bucket, or mend the address.")
    CREDENTIALS = (
        "There are no credentials for this address, or they have expired.",
        "Sign in (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, `aws configure`, `gcloud auth application-default login`)",
    )
    DENIED = (
        "You may not read or write here.",
        "Ask for permission to list, read, write and delete objects below this address, or mend the credentials",
    )
    QUOTA = ("The remote disk is full, or your quota is used up.", "Free space there, or choose another --root")
    BUSY = ("The server is overloaded.", "Wait a while")
    NETWORK = (
        "The server cannot be reached.",
        "Check the network and the address of the server (AWS_ENDPOINT_URL of S3-compatible ones)",
    )
    OTHER = ("The server refuses.", "Mend it, or choose another --root")

    @property
    def may_pass(self) -> bool:
        """Whether trying again may help."""
        return self in (Kind.BUSY, Kind.NETWORK)


class Unreachable(StoreError):
    """The remote side cannot be looked at; a complete mirror can do without."""


_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
                "UnauthorizedSSOTokenError", "SSOTokenLoadError", "ProfileNotFound", "DefaultCredentialsError",
                "RefreshError")  # fmt: skip
_NETWORK = ("HTTPClientError", "EndpointConnectionError", "ConnectionError", "ConnectTimeoutError", "ReadTimeoutError",
            "ClientError", "IncompleteRead", "FSTimeoutError", "ResponseParserError", "gaierror", "RetryError",
            "ChecksumError")  # fmt: skip
_LIBRARIES = {"botocore", "aiobotocore", "aiohttp", "requests", "urllib3", "fsspec", "socket", "google", "gcsfs"}
_CODES = {
    "NoSuchBucket": Kind.BUCKET,
    "InvalidBucketName": Kind.BUCKET,
    "ExpiredToken": Kind.CREDENTIALS,
    "InvalidAccessKeyId": Kind.CREDENTIALS,
    "InvalidToken": Kind.CREDENTIALS,
    "QuotaExceeded": Kind.QUOTA,
    "QuotaExceededException": Kind.QUOTA,
    "ServiceQuotaExceededException": Kind.QUOTA,
    "XMinioStorageFull": Kind.QUOTA,
    "InsufficientStorage": Kind.QUOTA,
    "507": Kind.QUOTA,
    "SlowDown": Kind.BUSY,
    "ServiceUnavailable": Kind.BUSY,
    "InternalError": Kind.BUSY,
    "RequestTimeout": Kind.BUSY,
    "OperationAborted": Kind.BUSY,
    "429": Kind.BUSY,
    "500": Kind.BUSY,
    "502": Kind.BUSY,
    "503": Kind.BUSY,
    "504": Kind.BUSY,
    "401": Kind.CREDENTIALS,
}
_NUMBERS = {
    errno.ENOSPC: Kind.QUOTA,
    errno.EDQUOT: Kind.QUOTA,
    errno.EBUSY: Kind.BUSY,
    getattr(errno, "EREMOTEIO", errno.EIO): Kind.BUSY,
}


def kind_of(error: BaseException) -> Kind:
    """What kind of failure an error of fsspec, or of a library below it, is."""
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    code = _code(error)
    if code in _CODES:
        kind = _CODES[code]
    elif any(name in _CREDENTIALS for _, name in names):
        kind = Kind.CREDENTIALS
    elif isinstance(error, FileNotFoundError):
        no_bucket = "bucket" in str(error).lower() and "not exist" in str(error)
        kind = Kind.BUCKET if no_bucket else Kind.MISSING
    elif isinstance(error, PermissionError):
        kind = Kind.DENIED
    elif isinstance(error, ConnectionError | TimeoutError) or any(m in _LIBRARIES and n in _NETWORK for m, n in names):
        kind = Kind.NETWORK
    else:
        kind = _NUMBERS.get(getattr(error, "errno", None) or 0, Kind.OTHER)
    return kind


def failure(error: BaseException, where: str) -> StoreError:
    """The `StoreError` for a failure; `Unreachable` if a look at the remote side cannot be had at all."""
    kind = kind_of(error)
    problem, remedy = kind.value
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    then = "" if kind in (Kind.MISSING, Kind.BUCKET) else ", then run the same command again: what is done is kept."
    cannot = kind in (Kind.CREDENTIALS, Kind.DENIED, Kind.BUSY, Kind.NETWORK)
    return (Unreachable if cannot else StoreError)(f"{problem} ({said})", where=where, remedy=f"{remedy}{then}")


def missing_library(url: Url, error: ImportError) -> Unreachable:
    """The error for a scheme whose library is not installed."""
    extra = EXTRAS.get(url.scheme, "s3")
    return Unreachable(
        f"Stores at {url.scheme}:// need a library that is not installed ({error}).",
        where=str(url),
        remedy=f"pip install 'tosca-cache[{extra}]'",
    )


def _code(error: BaseException) -> str | None:
    """The code that the server sent: of botocore's errors, which s3fs has as causes, and of gcsfs's."""
    for found in (error, error.__cause__):
        response = getattr(found, "response", None)
        if isinstance(response, dict) and isinstance(response.get("Error"), dict):
            return str(response["Error"].get("Code"))
        if isinstance(getattr(found, "code", None), int | str):
            return str(getattr(found, "code"))  # noqa: B009
    return None
