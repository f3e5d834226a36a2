"""What nkform makes of a template in child processes, kept from command to command of a test process.

A child that renders, compiles with bcc or opens an object costs milliseconds; in the lab, where a fork and each page
that is written after it is dear, up to a quarter of a second, and bcc ten seconds on an emulated kernel. What comes out
depends on nothing but what went in. Tests of templates, engines and of the children themselves keep nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import pytest

from nkform.bpf import engine_bcc, engine_clang, render
from nkform.bpf.loader import Prototype

_bodies: dict[object, Any] = {}
_compiled: dict[str, engine_bcc.BccObject] = {}
_prototypes: dict[str, Prototype] = {}
_inputs: dict[int, tuple[render.Template, str]] = {}


def keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps them until the test is over."""
    body, build, prototype = render.Renderer._body, engine_bcc.BccEngine.build, engine_clang.ClangObject.prototype

    def kept_body(self: Any, template: render.Template, params: Any, facts: Any, engine: str) -> Any:
        about = (facts.kind, facts.mode, facts.hook, facts.framing, engine, render._library_digest())
        key = (_input(template), *about, repr(params))
        if key not in _bodies:
            _bodies[key] = body(self, template, params, facts, engine)
        return _bodies[key]

    def kept_build(self: Any, rendered: Any) -> engine_bcc.BccObject:
        key = engine_bcc._key(rendered)
        if key in _compiled:
            self._built[key] = _compiled[key]
        return _compiled.setdefault(key, build(self, rendered))

    def kept_prototype(self: Any, rendered: Any) -> Prototype:
        if self.key not in _prototypes:
            _prototypes[self.key] = prototype(self, rendered)
        found = _prototypes[self.key]
        return dataclasses.replace(found, btf_fd=os.dup(found.btf_fd) if found.btf_fd >= 0 else -1)

    monkeypatch.setattr(render.Renderer, "begin", lambda _: None)  # the child would have nothing to do
    monkeypatch.setattr(render.Renderer, "_body", kept_body)
    monkeypatch.setattr(engine_bcc.BccEngine, "build", kept_build)
    monkeypatch.setattr(engine_clang.ClangObject, "prototype", kept_prototype)


def _input(template: render.Template) -> str:
    """All that a template is, as text; the template itself is kept so that no other one gets its id."""
    if id(template) not in _inputs:
        _inputs[id(template)] = template, hashlib.sha256(repr((template, template.texts)).encode()).hexdigest()
    return _inputs[id(template)][1]
