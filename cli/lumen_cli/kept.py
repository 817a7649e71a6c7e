"""Models by the names people use: of the store, of the configuration, or a reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from lumen.hub.errors import BadReferenceError
from lumen.hub.reference import Builtin, LocalFile, parse
from lumen.hub.store import Manifest, Store, absolute, matches
from lumen.paths import Paths
from lumen_cli.errors import CliError

if TYPE_CHECKING:
    from lumen.config.schema import Config


@dataclass(frozen=True, slots=True)
class Kept:
    """A model whose files are on this disk. `manifest`: `None` for a built-in one and an unregistered file."""

    name: str
    reference: str
    files: tuple[Path, ...]
    manifest: Manifest | None = None


def find(text: str, paths: Paths, config: Config) -> Kept:
    """The model that `text` names.

    Raises:
        CliError: there is none here; says what to do.
    """
    store = Store(paths.models_dir)
    manifest = store.get(text)
    if manifest is None and text in config.models:
        text = config.models[text].source
    if manifest is None:
        try:
            reference = parse(text)
        except BadReferenceError as error:
            near = get_close_matches(text, [*config.models, *(m.name for m in store.all())], n=1, cutoff=0.5)
            if near:
                raise CliError(f"no model is called {text!r}", f"did you mean {near[0]}?") from None
            raise CliError(f"no model is called {text!r}", "`lumen ls` lists them") from error
        if isinstance(reference, (Builtin, LocalFile)):
            return _outside(text, reference, paths)
        manifest = store.find(reference)
    if manifest is None:
        raise CliError(f"{text} is not on this disk", f"fetch it with `lumen pull {text}`")
    return Kept(manifest.name, manifest.reference, tuple(store.path_of(file) for file in manifest.files), manifest)


def _outside(text: str, reference: Builtin | LocalFile, paths: Paths) -> Kept:
    from lumen.hub import resolve

    files = resolve(text, paths)
    if files is None:
        where = absolute(reference) if isinstance(reference, LocalFile) else reference
        raise CliError(f"there is no file {where}", "check the path")
    return Kept(files.name, str(reference), (files.path,))


def users(manifest: Manifest, config: Config) -> Iterator[str]:
    """The configured models that need these files."""
    for name, model in config.models.items():
        for source in filter(None, (model.source, model.draft, *model.adapters.values())):
            try:
                if matches(manifest, parse(source)):
                    yield name
                    break
            except BadReferenceError:
                continue
