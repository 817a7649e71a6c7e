from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.hub.choose import RemoteFile, choose, quant_of
from lumen.hub.errors import BadReferenceError, MissingError
from lumen.hub.reference import HubModel, parse


def files(*paths: str) -> list[RemoteFile]:
    return [RemoteFile(path, 10, "a" * 64) for path in paths]


def wanted(text: str = "hf://org/repo") -> HubModel:
    reference = parse(text)
    assert isinstance(reference, HubModel)
    return reference


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("Qwen3-4B-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-3b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("llama.Q8_0.gguf", "Q8_0"),
        ("m-IQ4_XS.gguf", "IQ4_XS"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-BF16.gguf", "BF16"),
        ("m-mxfp4.gguf", "MXFP4"),
        ("m-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"),
        ("Q8_0/model-00001-of-00002.gguf", "Q8_0"),
        ("Q8_0.gguf", "Q8_0"),
        ("model.gguf", None),
        ("qwen3.gguf", None),
    ],
)
def test_names_tell_the_quantisation(path: str, quant: str | None) -> None:
    assert quant_of(path) == quant


def test_the_default_is_q4_k_m_and_projectors_are_left_alone() -> None:
    found = choose(wanted(), files("README.md", "mmproj-Q4_K_M.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf"))
    assert [file.path for file in found.files] == ["m-Q4_K_M.gguf"]
    assert found.quant == "Q4_K_M"


def test_without_the_default_the_next_best_is_taken() -> None:
    assert choose(wanted(), files("m-Q8_0.gguf", "m-Q6_K.gguf", "m-Q2_K.gguf")).quant == "Q6_K"
    assert choose(wanted(), files("only.gguf")).files[0].path == "only.gguf"


def test_a_quantisation_is_found_whatever_its_case() -> None:
    found = choose(wanted("hf://org/repo:q5_k_m"), files("m-q5_k_m.gguf", "m-UD-Q5_K_M.gguf", "m-q4_k_m.gguf"))
    assert found.files[0].path == "m-q5_k_m.gguf"
    assert choose(wanted("hf://o/r:ud-q5_k_m"), files("m-q5_k_m.gguf", "m-UD-Q5_K_M.gguf")).quant == "UD-Q5_K_M"


def test_split_models_come_whole_and_in_order() -> None:
    parts = [f"Q4_K_M/m-Q4_K_M-{n:05d}-of-00003.gguf" for n in (3, 1, 2)]
    found = choose(wanted(), files(*parts))
    assert [file.path for file in found.files] == sorted(parts)
    assert found.size == 30


def test_an_incomplete_split_is_not_a_model() -> None:
    with pytest.raises(MissingError, match="no GGUF"):
        choose(wanted(), files("m-Q4_K_M-00001-of-00003.gguf", "m-Q4_K_M-00003-of-00003.gguf"))


def test_a_file_by_name_and_any_part_of_a_split() -> None:
    assert choose(wanted("hf://o/r/x/m.gguf"), files("x/m.gguf", "m-Q4_K_M.gguf")).files[0].path == "x/m.gguf"
    parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert len(choose(wanted("hf://o/r/m-00002-of-00002.gguf"), files(*parts)).files) == 2
    with pytest.raises(MissingError, match=r"did you mean m-Q8_0.gguf\?"):
        choose(wanted("hf://o/r/m-Q8.gguf"), files("m-Q8_0.gguf"))


def test_what_is_not_there_names_what_is() -> None:
    with pytest.raises(MissingError, match="it has Q4_K_M, Q8_0"):
        choose(wanted("hf://o/r:Q5_0"), files("m-Q8_0.gguf", "m-Q4_K_M.gguf"))
    with pytest.raises(MissingError, match="-GGUF"):
        choose(wanted(), files("model.safetensors"))
    with pytest.raises(MissingError, match=r"pick one of a\.gguf, b\.gguf"):
        choose(wanted(), files("a.gguf", "b.gguf"))


@pytest.mark.parametrize(
    "path", ["../m.gguf", "/etc/m.gguf", "a/../../m.gguf", "a\\..\\m.gguf", ".ssh/m.gguf", "C:/m.gguf"]
)
def test_hostile_names_are_refused(path: str) -> None:
    with pytest.raises(BadReferenceError):
        choose(wanted(), files(path))


@given(st.lists(st.text(max_size=30).map(lambda name: name + ".gguf"), max_size=6))
def test_any_listing_gives_a_choice_or_a_reason(paths: list[str]) -> None:
    try:
        found = choose(wanted(), files(*paths))
    except (MissingError, BadReferenceError) as error:
        assert error.message
    else:
        assert {file.path for file in found.files} <= set(paths)


PLAIN = ("README.md", "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
         "model.safetensors.index.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja")  # fmt: skip
NEVER = ("pytorch_model.bin", "model.pt", "modeling_own.py", "onnx/model.onnx", ".gitattributes", "sub/config.json",
         "consolidated.safetensors")  # fmt: skip


@pytest.mark.parametrize("quant", [None, "SAFETENSORS"])
def test_a_repository_without_gguf_is_a_folder_of_safetensors(quant: str | None) -> None:
    choice = choose(HubModel("o", "r", quant), files(*NEVER, *PLAIN))
    assert choice.quant == "SAFETENSORS"
    assert choice.files[0].path == "config.json"
    assert {file.path for file in choice.files} == set(PLAIN) - {"README.md"}


def test_where_both_are_gguf_is_taken_unless_asked_otherwise() -> None:
    both = files(*PLAIN, "m-Q4_K_M.gguf")
    assert choose(HubModel("o", "r"), both).files[0].path == "m-Q4_K_M.gguf"
    assert choose(HubModel("o", "r", "SAFETENSORS"), both).quant == "SAFETENSORS"


def test_a_makers_own_format_is_taken_where_there_is_no_other() -> None:
    choice = choose(HubModel("o", "r"), files("config.json", "consolidated.safetensors"))
    assert [file.path for file in choice.files] == ["config.json", "consolidated.safetensors"]


@pytest.mark.parametrize("paths", [("config.json", "pytorch_model.bin"), ("model.safetensors",), ()])
def test_pickles_and_weights_without_a_configuration_are_no_model(paths: tuple[str, ...]) -> None:
    for quant in (None, "SAFETENSORS"):
        with pytest.raises(MissingError, match="safetensors"):
            choose(HubModel("o", "r", quant), files(*paths))
