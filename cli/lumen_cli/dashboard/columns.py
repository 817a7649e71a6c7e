"""The columns of every table: which matter most, and how narrow each may get. Pure."""

from __future__ import annotations

from lumen_cli.dashboard.fit import Column


def figure(name: str, keep: int) -> Column:
    return Column(name, keep, right=True, least=20)


ROUTES = (
    Column("route", 9, least=12, most=40),
    figure("req/s", 8),
    figure("tok/s", 6),
    figure("p50", 5),
    figure("p95", 8),
    figure("p99", 4),
    figure("errors", 9),
    figure("cost", 7),
)
# `load`: in flight, and share of the traffic.
TARGETS = (
    Column("target", 9, least=13, most=40),
    Column("state", 9, least=9),
    figure("for", 8),
    figure("load", 8),
    figure("errors", 8),
    figure("first now", 7),
    figure("usual p50/p95", 5),
    Column("why", 7, least=12, most=100),
)
FAILOVERS = (
    Column("when", 9),
    Column("from", 9, least=10, most=32),
    Column("to", 9, least=10, most=32),
    Column("rung", 8, least=9),
    figure("at", 6),
    figure("seam", 8),
    Column("client saw", 7, least=21),
    Column("why", 5, least=12),
    Column("request", 2, least=28),
)
REQUESTS = (
    Column("route", 9, least=8, most=24),
    Column("target", 9, least=10, most=28),
    Column("outcome", 9, least=10, most=40),
    figure("tokens", 7),
    figure("first", 7),
    figure("total", 8),
    figure("cost", 6),
    figure("score/bar", 5),
    figure("tries", 4),
    Column("first token's parts", 4, least=14),
    Column("key", 3, least=6, most=20),
    Column("reason", 5, least=12, most=80),
    Column("request", 2, least=28),
)
MODELS = (
    Column("model", 9, least=14, most=40),
    Column("state", 9, least=9),
    Column("doing", 8, least=24, most=60),
    Column("memory", 7, least=16),
    figure("flight", 6),
    figure("waiting", 6),
    figure("wakes in", 4),
)
REPLICAS = (
    Column("model", 9, least=14, most=40),
    figure("#", 8),
    Column("state", 9, least=9),
    figure("for", 6),
    Column("doing", 8, least=24, most=100),
    figure("flight", 6),
    figure("restarts", 5),
    figure("pid", 4),
)
TRIALS = (
    Column("trial", 8),
    Column("route", 9, least=8, most=24),
    Column("candidate", 9, least=12, most=32),
    Column("state", 8, least=12, most=50),
    figure("share", 7),
    Column("seen", 6, least=12),
    Column("evidence", 5, least=12),
    figure("for", 3),
)
BUDGETS = (
    Column("budget of", 9, least=10, most=32),
    Column("per", 9, least=6),
    Column("spent", 8, least=16),
    figure("of", 7),
    figure("held", 5),
)
DEVICES = (
    Column("device", 9, least=6),
    Column("memory", 9, least=16),
    figure("used", 7),
    figure("of", 7),
    figure("Lumen's", 5),
    Column("busy", 8, least=16),
    figure("temperature", 3),
    Column("name", 4, least=10),
)
