"""The upstreams a configuration comes to, kept across reloads so that connections and running streams stay."""

from __future__ import annotations

import os
from collections.abc import Collection

from lumen.config.schema import Config, Provider
from lumen.core.errors import ConfigError
from lumen.gateway.table import Origins
from lumen.gateway.upstream import Local, Remote, Upstream
from lumen.providers.base import Capabilities, Dialect, Module, module
from lumen.workers.supervisor import Supervisor

# Variables that look like secrets are hidden from engines even where no provider names them.
_SECRET_ENDINGS = ("_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


class Upstreams:
    """Makes, keeps and drops upstreams."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._kept: dict[tuple[str, ...], Upstream] = {}
        self.dialect = module("openai").make(Capabilities(local=True, token_ids=True))

    def none(self) -> Origins:
        """What there is before a configuration is in force."""
        return Origins({}, {}, self.dialect)

    def of(self, config: Config, models: Collection[str]) -> Origins:
        """The origins of a configuration; `models` are the local ones.

        Raises:
            ConfigError: a provider's key is not in the environment.
        """
        used: dict[tuple[str, ...], Upstream] = {}
        local = {}
        for name in models:
            identity: tuple[str, ...] = ("local", name)
            local[name] = used[identity] = self._kept.get(identity) or Local(self._supervisor, name)
        remote: dict[str, tuple[Upstream, Dialect, bool]] = {}
        for name, provider in config.providers.items():
            speaks = module(provider.dialect)
            headers = _headers(name, provider, speaks)
            identity = ("remote", provider.base_url, *(part for pair in sorted(headers.items()) for part in pair))
            used[identity] = self._kept.get(identity) or Remote(provider.base_url, headers)
            can = Capabilities(local=provider.token_ids, token_ids=provider.token_ids)
            remote[name] = (used[identity], speaks.make(can), provider.token_ids)
        for identity in self._kept.keys() - used.keys():
            self._kept[identity].close()
        self._kept = used
        return Origins(local, remote, self.dialect)

    def close(self) -> None:
        for upstream in self._kept.values():
            upstream.close()
        self._kept.clear()


def hidden(config: Config) -> set[str]:
    """Names of environment variables that no engine may see: keys of providers, and all that look like one."""
    named = {p.key.removeprefix("env:") for p in config.providers.values() if p.key}
    return named | {name for name in os.environ if name.endswith(_SECRET_ENDINGS)}


def _headers(name: str, provider: Provider, speaks: Module) -> dict[str, str]:
    headers = dict(provider.headers)
    if provider.key is not None:
        variable = provider.key.removeprefix("env:")
        secret = os.environ.get(variable)
        if not secret:
            raise ConfigError(f"provider '{name}' takes its key from ${variable}, which is not set")
        headers |= speaks.headers(secret)
    return headers
