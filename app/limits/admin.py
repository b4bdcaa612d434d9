"""Who may load and unload models: holders of the token, over the address that the settings name."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path

from tessera.app.errors import ForbiddenError, StartupError, UnauthorisedError
from tessera.app.settings import Settings

SHORTEST_TOKEN = 16  # characters; less can be guessed
_LARGEST_FILE = 4096
_SCHEME = "bearer "


class AdminGate:
    """Checks requests for admin verbs.

    Args:
        settings: Whether there are admin verbs, where they are answered, and the token.

    Raises:
        StartupError: The token cannot be read or can be guessed, or admin verbs could never be reached.
    """

    def __init__(self, settings: Settings) -> None:
        self._token = _token(settings).encode() if settings.admin else None
        self._host = settings.admin_host
        if settings.admin and not (_any(settings.host) or self._answers(settings.host)):
            raise StartupError(
                f"The service listens on {settings.host} and admin verbs are answered on {self._host} only, so they "
                "could never be reached. Set --admin-host to the same address."
            )

    def check(self, authorization: str | None, address: str | None) -> None:
        """Let a request pass, or say why not.

        Args:
            authorization: Its `Authorization` header.
            address: The address of ours that its connection was made to; None when that is not known.

        Raises:
            ForbiddenError: There are no admin verbs, or not over this address.
            UnauthorisedError: The token is missing or wrong.
        """
        if self._token is None:
            raise ForbiddenError("Admin verbs are off; the setting 'admin' and a token switch them on.")
        if address is None or not self._answers(address):
            raise ForbiddenError(f"Admin verbs are answered on {self._host} only; see the setting 'admin_host'.")
        sent = authorization or ""
        # The comparison takes as long for a nearly right token as for a wrong one.
        right = hmac.compare_digest(sent[len(_SCHEME) :].strip().encode(), self._token)
        if sent[: len(_SCHEME)].lower() != _SCHEME or not right:
            raise UnauthorisedError("Admin verbs need the header 'Authorization: Bearer' with the service's token.")

    def _answers(self, address: str) -> bool:
        if _any(self._host) or address == self._host:
            return True
        return _loopback(self._host) and _loopback(address)


def _token(settings: Settings) -> str:
    if settings.admin_token_file is not None:
        token, source = _read(settings.admin_token_file), "admin_token_file"
    else:
        assert settings.admin_token is not None, "the settings have made sure of it"
        token, source = settings.admin_token.get_secret_value().strip(), "admin_token"
    if len(token) < SHORTEST_TOKEN:
        raise StartupError(f"The token of {source} has fewer than {SHORTEST_TOKEN} characters and could be guessed.")
    return token


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            token = file.read(_LARGEST_FILE).strip()
        token.encode("ascii")
    except OSError as error:
        raise StartupError(f"The admin token file {path} cannot be read: {error.strerror}.") from error
    except UnicodeError as error:
        raise StartupError(f"The admin token file {path} holds more than plain ASCII text.") from error
    return token


def _any(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
