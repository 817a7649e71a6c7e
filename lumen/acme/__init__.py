"""Certificates from an ACME authority (RFC 8555), obtained and renewed by Lumen itself.

The work is done by a process of its own for each order (`python -m lumen.acme`): the library that speaks the protocol
is synchronous, and neither it nor the account's key is in the gateway then. `gateway/acme.py` starts it, answers the
authority's challenges and says when; `plan.py` decides; `order.py` alone imports the library (`lumen-serve[acme]`).
"""
