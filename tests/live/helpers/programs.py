"""Engines, rendered templates and loaded programs for the live tests of programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nkform.bpf import Facts, Rendered, Renderer, Template, catalogue, check, engines
from nkform.bpf.engines import Engine
from nkform.bpf.loader import Loaded, Loader
from nkform.bpf.render import ENGINES

TEMPLATES = catalogue()
FACTS = Facts("netkit", "l3", "peer", ifindex=1, peer_ifindex=1, mac="02:00:00:00:00:02", mtu=1500)


class Workshop:
    """An engine, with all that is needed to load programs by it."""

    def __init__(self, engine: str, cache: Path) -> None:
        self.engine: Engine = engines.make(engine, cache=cache)
        self.renderer = Renderer()
        self.loader = Loader()

    def render(
        self, template: Template | str, params: Mapping[str, object] | None = None, facts: Facts = FACTS
    ) -> Rendered:
        wanted = TEMPLATES[template] if isinstance(template, str) else template
        checked = check(wanted, params or {})
        assert not checked.problems, checked.problems
        return self.renderer.render(wanted, checked.params, facts, self.engine.name)

    def load(
        self,
        template: Template | str,
        params: Mapping[str, object] | None = None,
        facts: Facts = FACTS,
        maps: Mapping[str, int] | None = None,
        *,
        alone: bool = False,
    ) -> Loaded:
        rendered = self.render(template, params, facts)
        return self.loader.load(self.engine.build(rendered), rendered, maps, alone=alone)


@pytest.fixture(scope="module", params=ENGINES)
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop(request.param, tmp_path_factory.mktemp("cache"))
    with made.loader:
        yield made
