"""Keys and certificates as PEM: made, read, and checked against what was ordered."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from lumen.acme.plan import Standing

# How long one that nobody vouches for is good for.
_STOPGAP = datetime.timedelta(days=30)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh key on the curve that every client knows."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def self_signed(domains: Sequence[str], now: float) -> bytes:
    """Key and certificate that nobody vouches for, to be there until an authority's is: PEM."""
    key = new_key()
    start = datetime.datetime.fromtimestamp(now, datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Lumen, not certified yet")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(hours=1))
        .not_valid_after(start + _STOPGAP)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain) for domain in domains]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key_pem(key) + made.public_bytes(Encoding.PEM)


def read(pem: bytes) -> Standing:
    """What the first certificate of a PEM file says.

    Raises:
        ValueError: there is none.
    """
    first = x509.load_pem_x509_certificates(pem)[0]
    try:
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = tuple(sorted(name.lower() for name in names.get_values_for_type(x509.DNSName)))
    except x509.ExtensionNotFound:
        found = ()
    return Standing(
        names=found,
        not_before=first.not_valid_before_utc.timestamp(),
        not_after=first.not_valid_after_utc.timestamp(),
        self_signed=first.subject == first.issuer,
        digest=hashlib.sha256(pem).hexdigest(),
    )


def check(chain: bytes, key: ec.EllipticCurvePrivateKey, domains: Sequence[str], now: float) -> None:
    """Believe an authority that it made what was ordered, only having looked.

    Raises:
        ValueError: it is for another key or other names, or not good now.
    """
    standing = read(chain)
    spki = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    first = x509.load_pem_x509_certificates(chain)[0]
    if first.public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
        raise ValueError("the certificate that came is for another key")
    if not standing.covers(domains):
        raise ValueError(f"the certificate that came is for {', '.join(standing.names) or 'nobody'}")
    # An hour of grace: a clock that is a little wrong is not the authority's fault.
    if not standing.not_before - 3600 <= now < standing.not_after:
        raise ValueError("the certificate that came is not good now; see to this machine's clock")
