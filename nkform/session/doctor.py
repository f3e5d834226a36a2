"""What this kernel and machine can do; for what they cannot, why and what to install."""

from __future__ import annotations

from nkform.features import FEATURES
from nkform.kinds import kind_of
from nkform.listing import enumerated
from nkform.results import Finding


def findings() -> list[Finding]:
    """All that was looked at. Changes nothing that lasts."""
    return [_kernel(), _privileges(), *_features(), _grace_periods(), *_engines(), *_programs()]


def _kernel() -> Finding:
    from nkform.kernel.config import release

    return Finding("kernel", "ok", f"Linux {release()}")


def _privileges() -> Finding:
    from nkform.kernel.process import is_root

    if is_root():
        return Finding("privileges", "ok", "root")
    return Finding(
        "privileges",
        "missing",
        "not root",
        "plan, apply and show need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN",
    )


def _features() -> list[Finding]:
    from nkform.kernel.config import option
    from nkform.kernel.error import KernelError
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.probe import probe

    try:
        with Namespaces() as namespaces:
            found = probe(namespaces, FEATURES)
    except KernelError as error:
        return [Finding(name, "unknown", feature.what, f"could not {error}") for name, feature in FEATURES.items()]
    findings = []
    for name, feature in FEATURES.items():
        if name in found:
            findings.append(Finding(name, "ok", feature.what))
            continue
        of_kind = kind_of(feature.kind).feature
        if of_kind not in ("", name, *found):
            findings.append(Finding(name, "missing", f"{feature.what}: needs {FEATURES[of_kind].what}"))
            continue
        why = f"came with Linux {feature.since}"
        if feature.config and option(feature.config) == "n":
            why += f"; this kernel was built without {feature.config}"
        findings.append(
            Finding(name, "missing", f"{feature.what}: {why}", feature.hint or "boot a newer kernel to use it")
        )
    return findings


def _grace_periods() -> Finding:
    """Whether attaching a program can do without waiting for a grace period."""
    from nkform.apply.expedite import is_borrowed
    from nkform.kernel import rcu
    from nkform.kernel.error import KernelError

    name, what = rcu.EXPEDITED.name, "expedited grace periods while programs are attached and detached"
    if why := rcu.obstacle():
        return Finding(name, "missing", f"{what}: {why}", "each attachment takes the kernel 8 to 20 ms, if it waits")
    try:
        on = rcu.read()
    except KernelError as error:
        return Finding(name, "unknown", f"{what}: could not {error}")
    if on == rcu.OFF:
        return Finding(name, "ok", what)
    if is_borrowed():
        return Finding(
            name, "ok", f"{what}: a run of nkform has set {rcu.EXPEDITED} to {on}; it, or the next one, puts it back"
        )
    return Finding(name, "ok", f"{what}: {rcu.EXPEDITED} is {on} already, and nkform leaves it alone")


def _engines() -> list[Finding]:
    """What compiles and keeps programs; a node needs one engine, and none for objects that were built elsewhere."""
    from nkform.bpf.engine_clang import find_compiler
    from nkform.kernel import bpffs, libbcc

    clang, bcc = find_compiler(), libbcc.find()
    elsewhere = "programs are compiled by the other engine, or elsewhere (nkform build)"
    findings = [
        Finding("clang", "ok" if clang else "missing", clang or "no clang", f"apt-get install clang; {elsewhere}"),
        Finding("bcc", "ok" if bcc else "missing", "python3-bpfcc" if bcc else "no Python module bcc",
                f"apt-get install python3-bpfcc (PyPI's bcc is something else); {elsewhere}"),
    ]  # fmt: skip
    mounted = bpffs.is_mounted()
    hint = f"nkform mounts it when it attaches a program; now: mount -t bpf -o mode=700 bpf {bpffs.BASE}"
    detail = bpffs.BASE if mounted else f"no bpffs at {bpffs.BASE}"
    return [*findings, Finding("bpffs", "ok" if mounted else "missing", detail, hint)]


def _programs() -> list[Finding]:
    import yaml

    from nkform.kernel.netns import RUN, stale

    if hasattr(yaml, "CSafeLoader"):
        findings = [Finding("libyaml", "ok", f"PyYAML {yaml.__version__} with libyaml")]
    else:
        hint = "install PyYAML from its wheel, or Debian's python3-yaml: large specs load ten times faster"
        findings = [Finding("libyaml", "missing", f"PyYAML {yaml.__version__} without libyaml", hint)]
    if names := stale():
        findings.append(
            Finding(
                "namespaces",
                "missing",
                f"{RUN} holds files that are no namespace: {enumerated(names)}",
                "`ip netns delete NAME` removes them",
            )
        )
    return findings
