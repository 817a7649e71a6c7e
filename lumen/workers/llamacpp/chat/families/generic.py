"""The fallback: a template that knows no tools. The tools are described in the system message and the model answers
with one JSON object, `{"name", "arguments"}` or `{"tool_calls": [{"name", "arguments"}, …]}`."""
