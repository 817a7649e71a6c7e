"""Objects in GBNF: members in their declared order, optional ones left out freely, then other keys."""

from __future__ import annotations

from collections.abc import Sequence

from lumen.workers.llamacpp.chat.gbnf import Rules, char_class, json_text, literal

#: Characters of a known key that another key is compared with.
MAX_SHARED = 48


def pairs(rules: Rules, hint: str, members: Sequence[tuple[str, bool]], others: str | None) -> str:
    """Body of an object rule. members: (rule of `"key": value`, required) in order; others: rule of a further pair.

    Two chains of rules, so that the text grows linearly and the sampler tracks one comma however many optional
    members may follow: `pick-i` is the next member given that one must come, `tail-i` what follows a member.
    """
    sp = rules.space()
    pick = ""
    tail = ""
    needed = False
    if others is not None:
        pick = rules.add(f"{hint}-others", f'{others} ({sp} "," {sp} {others})*')
        tail = rules.add(f"{hint}-tail", f'({sp} "," {sp} {pick})?')
    for pair, required in reversed(members):
        ahead = f"{pair} {tail}".strip()
        body = ahead if required or not pick else f"{ahead} | {pick}"
        needed = needed or required
        pick = rules.add(f"{hint}-pick", body)
        comma = f'{sp} "," {sp} {pick}'
        tail = rules.add(f"{hint}-tail", comma if needed else f"({comma})?")
    if not pick:
        return f'"{{" {sp} "}}"'
    return f'"{{" {sp} {pick} {sp} "}}"' if needed else f'"{{" {sp} ({pick} {sp})? "}}"'


def other_keys(rules: Rules, hint: str, known: Sequence[str]) -> str:
    """Rule of a JSON string that is none of `known`: no key may come twice."""
    if not known:
        return rules.string()
    words = sorted({json_text(name)[1:-1] for name in known})
    plain = [word for word in words if "\\" not in word]
    # An escape could spell a known key another way, save these where no known key holds one.
    escape = '"\\\\" ["\\\\bfnrt]' if len(plain) == len(words) else ""
    return rules.add(f"{hint}-key", f'"\\"" {_unlike(rules, hint, plain, escape, 0)}')


def _unlike(rules: Rules, hint: str, words: Sequence[str], escape: str, depth: int) -> str:
    """Rule of text, with the closing quote, that equals none of `words`."""
    any_text = f'{rules.char()}* "\\""'
    heads = sorted({word[0] for word in words if word})
    parts = [] if "" in words else ['"\\""']
    if depth < MAX_SHARED:
        # Beyond that the comparison ends: keys that go on like a known one are then not written at all.
        for head in heads:
            rest = [word[1:] for word in words if word[:1] == head]
            parts.append(f"{literal(head)} {_unlike(rules, hint, rest, escape, depth + 1)}")
    others = char_class({*heads, '"', "\\"}, negate=True).removesuffix("]") + "\\x00-\\x1F\\x7F]"
    parts.append(f"{others} {any_text}")
    if escape:
        parts.append(f"{escape} {any_text}")
    return rules.add(f"{hint}-unlike", " | ".join(parts))
