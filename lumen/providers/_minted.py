"""What a translated answer needs and its target does not tell: an id and a time. Not a dialect."""

from __future__ import annotations

import secrets
import time

from lumen.providers.base import Resume
from lumen.wire.call import Call
from lumen.wire.chunks import Writer


def writer_for(call: Call, resume: Resume | None) -> Writer:
    """Where a translated answer is written: under the identity the client knows, else under one minted here."""
    known = resume.identity if resume is not None else None
    identity = known or ("chatcmpl-" + secrets.token_hex(12), int(time.time()))
    return Writer(identity, call.request.model, include_usage=call.include_usage, fixed=known is not None)
