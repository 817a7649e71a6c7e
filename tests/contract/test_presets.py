"""Every preset found in profiles/providers is tested on arrival: one YAML file is all that a new vendor takes."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import pytest

from lumen.catalogue import Catalogue, vendor
from lumen.config import presets
from lumen.config.checks import known
from lumen.config.load import parse
from lumen.config.presets import Preset, find, names, origin, read
from lumen.config.remotes import is_loopback
from lumen.config.schema import Provider
from lumen.core.errors import ConfigError
from lumen.core.money import FREE
from lumen.providers.base import Capabilities

ALL = [find(name) for name in names()]
each = pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.name)


def is_local(preset: Preset) -> bool:
    return is_loopback(urlsplit(preset.base_url).hostname or "")


def test_there_are_many() -> None:
    assert len(ALL) >= 32
    vendors = "openai azure anthropic gemini groq together fireworks deepseek mistral xai openrouter cerebras "
    vendors += "perplexity moonshot zai nvidia huggingface sambanova novita nebius hyperbolic deepinfra cohere "
    vendors += "ollama lmstudio llama-server vllm sglang tgi github alibaba minimax baseten scaleway"
    assert set(vendors.split()) <= set(names())


def test_no_two_are_the_same_place() -> None:
    origins = Counter(origin(preset.base_url) for preset in ALL)
    assert [where for where, count in origins.items() if count > 1] == []
    variables = Counter(preset.key for preset in ALL if preset.key)
    assert [name for name, count in variables.items() if count > 1] == []


@each
def test_where_it_is(preset: Preset) -> None:
    parts = urlsplit(preset.base_url)
    assert parts.scheme == "https" or is_local(preset)
    assert preset.base_url == preset.base_url.rstrip("/")
    filled = preset.filled({hole: "some-name" for hole in preset.holes})
    assert preset.serves(filled) and "{" not in filled
    assert not preset.serves("https://elsewhere.example/v1")
    assert not preset.serves(filled.replace("://", "://evil.example/", 1))
    assert urlsplit(preset.docs or "").scheme == "https"


@each
def test_its_key_and_dialect(preset: Preset) -> None:
    assert preset.dialect in known("providers")
    assert (preset.key is None) == is_local(preset), "a vendor asks for a key, a local server does not"
    if preset.key is not None:
        assert preset.key.endswith(("_API_KEY", "_TOKEN", "_SECRET_KEY", "_BEDROCK")), "not the name of a secret"


@each
def test_what_it_can_do_is_plausible(preset: Preset) -> None:
    can = vendor(preset.name, _provider(preset)).capabilities
    assert not can.token_ids, "only Lumen's own workers speak its token ids"
    assert not can.local, "what has an address is nobody's child: its words are not to be believed like a worker's"
    if preset.dialect == "anthropic":
        assert not (can.seed or can.logprobs or can.n)
    if preset.dialect != "openai":
        assert can.prefill in ("none", "native"), "the other ways are fields of the OpenAI dialect"
    for said in preset.models.values():
        assert said.capabilities.token_ids is None and said.capabilities.local is None


@each
def test_it_serves_as_a_provider(preset: Preset) -> None:
    base = f"\n    base_url: {preset.filled({h: 'x' for h in preset.holes})}" if preset.holes else ""
    config = parse(f"providers:\n  mine:\n    preset: {preset.name}{base}\n", "c.yaml")
    found = vendor("mine", config.providers["mine"])
    assert found.title == preset.title
    assert found.key == (f"env:{preset.key}" if preset.key else None)
    price = Catalogue.of(config).price("mine", "no-such-model-anywhere")
    assert (price == FREE) if is_local(preset) else price is None


def test_capabilities_and_their_overrides_have_the_same_fields() -> None:
    from dataclasses import fields

    from lumen.config.schema import Abilities

    assert [f.name for f in fields(Abilities)] == [f.name for f in fields(Capabilities)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing but comments"),
        ("name: x\n", "needs 'title'"),
        ("name: y\ntitle: X\nbase_url: https://x.example\n", "this file is called x"),
        ("name: x\ntitle: ''\nbase_url: https://x.example\n", "expected the vendor's name"),
        ("name: x\ntitle: X\nbase_url: x.example\n", "expected an address"),
        ("name: x\ntitle: X\nbase_url: https://{a}.example/{b}?c\n", "ends before"),
        ("name: x\ntitle: X\nbase_url: https://x.example\nkey: sk-1\n", "name of an environment variable"),
        ("name: x\ntitle: X\nbase_url: https://x.example\nkeys: A_KEY\n", "did you mean 'key'"),
        ("name: x\ntitle: X\nbase_url: https://x.example\ncapabilities: {sed: true}\n", "did you mean 'seed'"),
        ("name: x\ntitle: X\nbase_url: https://x.example\ncapabilities: {prefill: yes}\n", "expected one of none"),
        ("name: x\ntitle: X\nbase_url: https://x.example\nlisting: all\n", "expected one of key, public, none"),
        ("name: x\ntitle: X\nbase_url: https://x.example\nheaders: {Authorization: Bearer a}\n", "carries a secret"),
        ("name: x\ntitle: X\nbase_url: https://x.example\nmodels: {m: {context: -1}}\n", "number of tokens"),
    ],
)
def test_a_file_that_is_wrong_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read(text, "x")
    assert str(caught.value).startswith("x.yaml")


def test_what_is_filled_in_cannot_lead_elsewhere() -> None:
    azure = find("azure")
    assert azure.filled({"resource": "my-team"}) == "https://my-team.openai.azure.com/openai/v1"
    for bad in ("evil.example/", "a@b", "", "a b", "a#", "-a", "a\n", "é"):
        with pytest.raises(ConfigError, match="needs a resource"):
            azure.filled({"resource": bad})
    with pytest.raises(ConfigError, match="has no value 'region'; it takes resource"):
        azure.filled({"resource": "a", "region": "b"})


def test_an_origin_has_one_form() -> None:
    assert origin("HTTPS://API.Example.com:443/v1/") == origin("https://api.example.com") == "https://api.example.com"
    assert origin("http://127.0.0.1:80/v1") == "http://127.0.0.1"
    assert origin("https://h:8443/v1") == "https://h:8443"


def test_names_are_found_without_reading() -> None:
    assert names() == tuple(sorted(path.stem for path in presets.folder().glob("*.yaml")))
    with pytest.raises(ConfigError, match="no preset 'opnai'"):
        find("opnai")


def _provider(preset: Preset) -> Provider:
    return Provider(base_url=preset.filled({hole: "x" for hole in preset.holes}), preset=preset.name)
