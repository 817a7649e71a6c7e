"""How commands are called: examples at the end of `lumen COMMAND --help` and in docs/cli.md, and where more is said.

Each example is a whole command line and what it does; a test holds every one of them to the options that there are.
"""

from __future__ import annotations

from typing import Any

# Path of a command → (command line without `lumen`, what it does).
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "up": (
        ("up", "run here until Ctrl-C; the first time it offers a model for this machine"),
        ("up --detach", "leave it running"),
        ("up -d --host 0.0.0.0 --port 8080", "serve other machines, which need keys"),
    ),
    "down": (("down", "let requests end, then stop"), ("down --timeout 5", "wait five seconds for them at most")),
    "status": (("status", "what runs"), ("status --json", "the same for programs")),
    "top": (
        ("top", "the live dashboard; ? shows its keys"),
        ("top --once", "one frame as text"),
        ("top --serve --port 8000", "in the browser"),
    ),
    "logs": (
        ("logs --follow", "the gateway's log as it grows"),
        ("logs --model llama --lines 200", "the end of one model's log"),
        ("logs --request req_0123", "one request put together: tries, times, costs, failovers"),
    ),
    "restart": (
        ("restart", "take over from the running gateway, an upgrade's new version too; no request is lost"),
        ("restart llama", "one model's engine alone"),
        ("restart --cold", "stop, then start"),
    ),
    "sleep": (("sleep llama", "free its device memory; the next request wakes it"),),
    "wake": (
        ("wake llama", "load it before it is asked for, and wait for it"),
        ("wake llama --no-wait", "without waiting"),
    ),
    "chat": (
        ("chat", "talk to the default model"),
        ("chat fast --system 'Answer in one line.'", "to a route, with instructions"),
        ("chat --once 'What is a token?'", "one answer, for scripts"),
    ),
    "models": (
        ("models", "what is configured and kept here"),
        ("models --provider openai --search mini", "what a provider offers, with prices"),
    ),
    "models ls": (("models ls --json", "the same for programs"),),
    "models set": (
        ("models set assistant --keep-alive 5m --idle-after 1h", "it sleeps, and goes, when nobody asks"),
        ("models set assistant --context 8192 --slots 4 --max-replicas 2", "larger, for more at once"),
    ),
    "models rm": (("models rm assistant", "not served any more; its file stays"),),
    "pull": (
        ("pull hf://Qwen/Qwen3-0.6B-GGUF:Q8_0 --name small --add", "fetch a model and serve it as `small`"),
        ("pull ./mine.gguf --name mine", "register a file of your own"),
    ),
    "ls": (("ls", "the model files on this disk"),),
    "show": (("show small", "what it is and how much memory it needs"),),
    "rm": (("rm small", "remove its files"), ("rm small --force", "also where the configuration names it")),
    "engine install": (("engine install vllm", "an engine that brings packages of its own"),),
    "engine ls": (("engine ls", "what is installed, and whether it can be used"),),
    "engine rm": (("engine rm vllm", "remove its environments"),),
    "fit": (
        ("fit hf://Qwen/Qwen3-8B-GGUF:Q4_K_M", "before anything is fetched: does it fit?"),
        ("fit small --context 32768 --slots 8", "with a longer context for eight answers at once"),
    ),
    "gpu": (("gpu", "cards and memory: how full, and whose it is"),),
    "gpu assign": (
        ("gpu assign llama --gpus 0,1 --replicas 2", "one replica on each of two cards"),
        ("gpu assign llama --gpus 0 --reserve", "keep its memory free while it is away"),
    ),
    "provider add": (
        ("provider add openai", "asks for the key, which is never shown again"),
        ("provider add anthropic --key env:ANTHROPIC_API_KEY", "take the key from the environment"),
        ("provider add box --base-url http://10.0.0.5:8000/v1 --no-key", "a server of your own"),
    ),
    "provider ls": (("provider ls", "and whether their keys are there"),),
    "provider show": (("provider show openai", "address, dialect, where its key is, what it can do"),),
    "provider price": (
        ("provider price mine/llama --input 0.60/1M --output 2.40/1M", "dollars a million tokens"),
        ("provider price 'mine/*' --input 0 --output 0", "nothing costs anything there"),
    ),
    "provider rm": (("provider rm openai", "with its key, where Lumen keeps it"),),
    "provider presets": (("provider presets", "vendors and servers that are known"),),
    "provider test": (
        ("provider test openai", "are address and key right, and how fast does it answer?"),
        ("provider test box --model llama --probe --max-cost 0.05usd", "find out what a model can do"),
    ),
    "route set": (
        ("route set fast --target small --target openai/gpt-4.1-mini --policy ordered", "the second where one fails"),
        ("route set fast --daily 5usd --max-output 2000", "within five dollars a day"),
        ("route set chat --policy auto --strong openai/gpt-4.1 --max-loss 1%", "the cheapest as good"),
        ("route set fast --rule 'turns > 3 -> openai/gpt-4.1'", "a rule that goes first"),
    ),
    "route rm": (("route rm fast", "clients get 404 for it from then on"),),
    "route ls": (("route ls", "the routes in force"),),
    "route show": (("route show fast", "targets, defaults and limits"),),
    "route saved": (("route saved chat --since 7d", "against asking its strong target always"),),
    "route explain": (("route explain chat --prompt 'Prove it.'", "which target would be asked, and why"),),
    "route evaluate": (
        ("route evaluate --data results.csv.gz --weak small --strong large --train 1500", "what a learner is worth"),
    ),
    "route learn": (
        ("route learn chat --dry-run", "what would be learnt, nothing changed"),
        ("route learn chat", "learn, and put it in force where it is certified"),
        ("route learn chat --rollback", "the version before"),
    ),
    "shadow start": (
        ("shadow start chat --candidate small --share 5% --budget 10usd --judge openai/gpt-4.1", "compare in the dark"),
    ),
    "shadow stop": (("shadow stop chat", "its report stays"),),
    "shadow status": (("shadow status", "every shadow"),),
    "shadow report": (("shadow report chat", "both sides, with what was measured"),),
    "shadow anchors": (("shadow anchors chat judged.jsonl", "pairs that a person judged, to hold judges against"),),
    "canary start": (
        ("canary start chat --candidate small --steps 1,10,50 --judge openai/gpt-4.1", "promoted or taken back"),
    ),
    "canary status": (("canary status chat", "its step, its evidence, its history"),),
    "canary report": (("canary report chat", "the pairs that were judged"),),
    "canary approve": (("canary approve chat", "promote it now"),),
    "canary rollback": (("canary rollback chat", "end it, and write the targets of before"),),
    "canary stop": (("canary stop chat", "end it without a verdict"),),
    "feedback": (
        ("feedback req_0123 --ok", "a good answer"),
        ("feedback req_0123 --score 0.3", "not so good"),
    ),
    "target ls": (("target ls", "breakers, latency, load"),),
    "target eject": (("target eject openai/gpt-4.1", "ask it only where nothing else is left"),),
    "target drain": (("target drain llama", "before its machine is worked on"),),
    "target restore": (("target restore llama", "as if nothing had been"),),
    "target failovers": (("target failovers", "the last answers that another target went on with"),),
    "key add": (
        ("key add app --routes fast --daily 2usd --rpm 60", "a key for one route, with limits"),
        ("key add guest --models 'small*' --expires 7d", "for some models, for a week"),
        ("key add ann --routes fast --reserve", "memory of the route's local models is kept free for it"),
        ("key add dashboard --role viewer", "for the admin API from afar; it asks no model"),
    ),
    "key set": (
        ("key set app --daily 5usd --rpm none", "another limit, and one less"),
        ("key set app --routes fast --routes chat --expires 30d", "which routes it may ask, and for how long"),
    ),
    "key ls": (("key ls", "names, limits and states; never the keys themselves"),),
    "key revoke": (("key revoke app", "refused from the next request on"),),
    "usage": (
        ("usage --by key --since 24h", "what each key cost in a day"),
        ("usage --by day --since 2026-11-01 --csv", "for a spreadsheet"),
    ),
    "invoice": (("invoice --month 2026-11 --html", "a month's statement to print"),),
    "login": (
        ("login --url https://lumen.example.com:5866", "confirm a code in any browser"),
        ("login --url lumen.example.com:5866 --key --ca ca.pem", "with a key that has a role, on standard input"),
    ),
    "logout": (("logout --url lumen.example.com:5866", "and end the sign-on there"),),
    "whoami": (("whoami --url lumen.example.com:5866", "who you are there, and your role"),),
    "audit ls": (("audit ls --action key --last 20", "who changed keys lately"),),
    "audit verify": (("audit verify", "is the log whole? Prints its last hash, to be kept elsewhere"),),
    "export": (("export --since 24h --route fast --output day.jsonl", "what a route keeps of a day"),),
    "backup": (("backup lumen.tar.gz", "also while it runs"),),
    "restore": (("restore lumen.tar.gz", "what was there stays beside it"),),
    "config check": (("config check", "the configuration in force"), ("config check new.yaml", "another file")),
    "config show": (("config show", "with every default filled in"),),
    "config path": (("config path", "where it is"),),
    "doctor": (
        ("doctor", "what is wrong here, and how to mend it"),
        ("doctor --bundle report.tar.gz", "one redacted archive for a report of a fault"),
    ),
}  # fmt: skip
# First word of a command → the document that says more.
MORE = {
    "up": "docs/getting-started.md", "restart": "docs/operations/README.md", "top": "docs/operations/README.md",
    "logs": "docs/operations/README.md", "sleep": "docs/pool.md", "wake": "docs/pool.md", "pull": "docs/engines.md",
    "engine": "docs/engines.md", "fit": "docs/gpus.md", "gpu": "docs/gpus.md", "provider": "docs/providers.md",
    "route": "docs/routing.md", "shadow": "docs/learning.md", "canary": "docs/learning.md",
    "feedback": "docs/learning.md", "target": "docs/failover.md", "key": "docs/security.md", "usage": "docs/money.md",
    "invoice": "docs/money.md", "login": "docs/security.md", "logout": "docs/security.md",
    "whoami": "docs/security.md", "audit": "docs/security.md", "export": "docs/operations/README.md",
    "backup": "docs/operations/README.md", "restore": "docs/operations/README.md", "config": "docs/configuration.md",
    "doctor": "docs/operations/README.md",
}  # fmt: skip
# What `lumen --help` ends with.
ROOT = """\
\b
Exit status:
  0    done
  1    failed; the last line on standard error says why
  2    called wrongly
  130  interrupted

\b
Environment:
  LUMEN_HOME   one folder for everything, in place of the usual ones
  LUMEN_URL    as --url; LUMEN_TOKEN a key or token for it, LUMEN_CA its authority
  LUMEN_DEBUG  1: show where a failure came from
  NO_COLOR     no colours

\b
Every command has --help with examples; docs/cli.md has them all."""


def equip(command: Any, path: str) -> None:
    """Put its examples, and those of the commands below it, at the end of their help."""
    command.epilog = epilog(path)
    for name, below in getattr(command, "commands", {}).items():
        equip(below, f"{path} {name}")


def epilog(path: str) -> str | None:
    """What the help of a command ends with."""
    lines = [f"  lumen {line}\n      {what}" for line, what in EXAMPLES.get(path, ())]
    parts = ["\b\nExamples:\n" + "\n".join(lines)] if lines else []
    if (more := MORE.get(path.partition(" ")[0])) is not None:
        parts.append(f"More: {more}")
    return "\n\n".join(parts) or None
