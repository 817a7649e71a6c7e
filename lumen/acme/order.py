"""One order of a certificate, from the account to the chain: the only file that imports `acme` and `josepy`.

Blocking. Every wait has a limit: of each request, and of the whole by `deadline`.
"""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from acme import challenges, crypto_util, errors, messages
from acme.client import ClientNetwork, ClientV2
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from lumen import __version__
from lumen.acme import certificate
from lumen.files import write_atomic
from lumen.wire.refusals import wait

# Seconds that one request may take.
_REQUEST = 30
# Nonces that are refused one after the other before the authority is believed to mean it.
_NONCES = 5
_REASON = 600


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is ordered from whom. `authority`: PEM of those the directory's own certificate is from, else the usual."""

    directory: str
    domains: tuple[str, ...]
    email: str | None
    authority: str | None
    account: Path


class OrderError(Exception):
    """Nothing came of it. `wait`: seconds that the authority asks for before the next try, 0 where it says nothing."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        # An authority's words end up in a log and on a terminal.
        super().__init__("".join(c if c.isprintable() else " " for c in reason)[:_REASON])
        self.wait = wait


def order(wanted: Wanted, show: Callable[[Mapping[str, str]], None], deadline: datetime.datetime) -> bytes:
    """Order a certificate for a new key: PEM of the key, the certificate, and those between it and the authority.

    Args:
        show: given {token: answer} to serve at `/.well-known/acme-challenge/`; returns when they are served.

    Raises:
        OrderError: in whatever way it failed.
    """
    asked: list[float] = [0.0]
    try:
        net = _Network(_account_key(wanted.account), wanted.authority, asked)
        client = ClientV2(ClientV2.get_directory(wanted.directory, net), net)
        _sign_on(client, wanted)
        key = certificate.new_key()
        placed = client.new_order(crypto_util.make_csr(certificate.key_pem(key), list(wanted.domains)))
        _prove(client, placed, show)
        chain = client.finalize_order(client.poll_authorizations(placed, deadline), deadline).fullchain_pem.encode()
        certificate.check(chain, key, wanted.domains, time.time())
    except errors.TimeoutError:
        raise OrderError("the authority did not come to an end in time") from None
    except errors.IssuanceError as error:
        raise OrderError(_told(error.error), asked[0]) from None
    except messages.Error as error:
        raise OrderError(_told(error), asked[0]) from None
    except requests.RequestException as error:
        raise OrderError(f"the directory cannot be reached ({type(error).__name__}: {_root(error)})") from None
    except (errors.Error, JoseError, ValueError, KeyError, AttributeError, OSError) as error:
        # What the library makes of an answer that is none of the protocol's is one of these.
        raise OrderError(f"{type(error).__name__}: {error}".strip().removesuffix(":"), asked[0]) from None
    return certificate.key_pem(key) + chain


class _Network(ClientNetwork):
    """The library's, patient with nonces, and keeping in `asked` for how long it was sent away."""

    def __init__(self, key: JWK, authority: str | None, asked: list[float]) -> None:
        super().__init__(key, alg=ES256, user_agent=f"lumen-serve/{__version__}", timeout=_REQUEST)
        # Passed to requests as it is, which takes the path of a file, too.
        self.verify_ssl: Any = authority or True
        self._asked = asked
        self.session.hooks["response"].append(self._look)

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for left in reversed(range(_NONCES)):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce" or not left:
                    raise
        raise AssertionError

    def _look(self, response: requests.Response, **_: Any) -> None:
        if response.status_code in (429, 503):
            # What an authority may ask for at most is `plan.py`'s to say.
            self._asked[0] = wait(response.headers, math.inf) or 0.0


def _account_key(path: Path) -> JWK:
    """The account's key, made where there is none; on disk before an authority knows it.

    Raises:
        ValueError: the file is not what was written.
    """
    if path.exists():
        found = JWK.from_json(json.loads(path.read_bytes()))
        if not isinstance(found, JWKEC):
            raise ValueError(f"{path} is not the key that was made for it")
        return found
    key = JWKEC(key=certificate.new_key())
    write_atomic(path, json.dumps(key.to_json()).encode(), mode=0o600)
    return key


def _sign_on(client: ClientV2, wanted: Wanted) -> None:
    """Have an account with this key: a new one, or the one there is, told of another address."""
    if client.external_account_required():
        raise errors.Error("the directory wants accounts that are bound to one of its own, which Lumen does not do")
    contact = (f"mailto:{wanted.email}",) if wanted.email else ()
    try:
        client.new_account(messages.NewRegistration(contact=contact, terms_of_service_agreed=True))
        return
    except errors.ConflictError as known:
        found = messages.RegistrationResource(uri=known.location, body=messages.Registration())
    account = client.query_registration(found)
    if account.body.contact != contact and contact:
        client.update_registration(account, account.body.update(contact=contact))


def _prove(client: ClientV2, placed: messages.OrderResource, show: Callable[[Mapping[str, str]], None]) -> None:
    """Answer one challenge for each name that the authority does not take from us without."""
    assert client.net.key is not None
    answers, shown = [], {}
    for one in placed.authorizations:
        if one.body.status == messages.STATUS_VALID:
            continue
        found = [offer for offer in one.body.challenges if isinstance(offer.chall, challenges.HTTP01)]
        if not found:
            raise errors.Error(f"the directory offers no http-01 challenge for {one.body.identifier.value}")
        response, answer = found[0].chall.response_and_validation(client.net.key)
        shown[found[0].chall.encode("token")] = answer
        answers.append((found[0], response))
    show(shown)
    for offer, response in answers:
        client.answer_challenge(offer, response)


def _told(error: messages.Error) -> str:
    """An authority's problem in one line: its kind, its words, those about single names."""
    parts = [f"{error.code or error.typ}: {error.detail or error.title or ''}"]
    parts += [_told(one) for one in (error.subproblems or ())[:8]]
    return "; ".join(part.strip() for part in parts)


def _root(error: BaseException) -> BaseException:
    """What lies under an error that was wrapped: the library repeats itself."""
    for _ in range(8):
        inner = next((one for one in (*error.args, getattr(error, "reason", None)) if isinstance(one, Exception)), None)
        if inner is None:
            break
        error = inner
    return error
