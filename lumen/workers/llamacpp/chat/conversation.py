"""OpenAI messages as the chat templates of models expect them."""

from __future__ import annotations

import json
from typing import Any

from lumen.workers.llamacpp.chat.sandbox import TemplateError

Messages = list[dict[str, Any]]


def for_template(messages: Messages, parts: bool, objects: bool, developer: bool) -> Messages:
    """Copies of `messages` in the shape a template takes. Raises TemplateError for content other than text.

    parts: the template reads content only as a list of parts; else it is made one string.
    objects: the template serialises arguments itself, so they must be objects; else they stay JSON text.
    developer: the template knows that role; else it becomes "system".
    """
    names = _call_names(messages)
    return [
        _message(message, f"messages[{number}]", parts, objects, developer, names)
        for number, message in enumerate(messages)
    ]


def _message(
    message: dict[str, Any], where: str, parts: bool, objects: bool, developer: bool, names: dict[str, str]
) -> dict[str, Any]:
    out = {key: value for key, value in message.items() if value is not None}
    if out.get("role") == "developer" and not developer:
        out["role"] = "system"
    text = content_text(message.get("content"), where)
    out["content"] = [{"type": "text", "text": text}] if parts else text
    if not out.get("tool_calls"):
        # Templates test whether the key is there.
        out.pop("tool_calls", None)
    else:
        out["tool_calls"] = [_call(call, objects) for call in out["tool_calls"]]
    if out.get("role") == "tool" and "name" not in out and message.get("tool_call_id") in names:
        out["name"] = names[message["tool_call_id"]]
    return out


def content_text(content: Any, where: str) -> str:
    """The text of a message's content: a string, a list of text parts, or none. Raises TemplateError."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TemplateError(f"{where}.content must be a string or a list of parts")
    texts = []
    for number, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in ("text", "refusal"):
            texts.append(str(part.get(part["type"]) or ""))
        else:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise TemplateError(f"{where}.content[{number}] is of type {kind}; this model reads text only")
    return "".join(texts)


def _call(call: Any, objects: bool) -> Any:
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    function = dict(call["function"])
    arguments = function.get("arguments")
    if objects and isinstance(arguments, str):
        function["arguments"] = _object(arguments)
    elif not objects and not isinstance(arguments, str):
        function["arguments"] = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    return {**call, "function": function}


def _object(arguments: str) -> Any:
    """The object in a JSON text; the text itself where it is none (a call that was cut short)."""
    try:
        value = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _call_names(messages: Messages) -> dict[str, str]:
    names: dict[str, str] = {}
    for message in messages:
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and isinstance(call.get("function"), dict):
                names[str(call.get("id"))] = str(call["function"].get("name"))
    return names


def fold_system(messages: Messages) -> Messages:
    """A leading system message moved into the first user message, for templates that know no system role."""
    if len(messages) < 2 or messages[0].get("role") != "system" or messages[1].get("role") != "user":
        return messages
    text = content_text(messages[0].get("content"), "messages[0]")
    asked = content_text(messages[1].get("content"), "messages[1]")
    return [{**messages[1], "content": f"{text}\n\n{asked}"}, *messages[2:]]


def size(messages: Messages) -> int:
    """About how many characters a conversation has."""
    total = 0
    todo: list[Any] = list(messages)
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
        total += 1
    return total
