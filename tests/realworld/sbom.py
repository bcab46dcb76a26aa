"""The list of dependencies in a program, as cargo-auditable writes it: JSON, compressed with zlib, in a
section of the binary.
"""

import json
import os
import re
import subprocess
import tomllib
import zlib

import harness
from harness import ROOT, check

SECTION = ".dep-v0"


def of(lab, program):
    """The packages that a program names, each a dict with name, version and source."""
    objcopy = harness.need("objcopy")
    into = lab.folder / "section"
    into.unlink(missing_ok=True)
    command = [objcopy, "--dump-section", f"{SECTION}={into}", program, os.devnull]
    result = subprocess.run(command, capture_output=True, text=True)
    if not into.exists():
        if harness.find_tool("cargo-auditable") is None and not (harness.WORK / "tools/bin/cargo-auditable").exists():
            raise harness.Skip("cargo-auditable is not installed")
        raise harness.Failure(f"{program.name} has no list: {result.stderr}")
    return json.loads(zlib.decompress(into.read_bytes()))["packages"]


def compare(lab, program, package):
    """Whether a program's list has what cargo links into this package, in the versions of Cargo.lock."""
    listed = of(lab, program)
    locked = {(it["name"], it["version"]) for it in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    strange = [it for it in listed if (it["name"], it["version"]) not in locked]
    check(not strange, f"{program.name}: not in Cargo.lock: {strange}")
    tree = ["cargo", "tree", "--locked", "--package", package, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]
    result = subprocess.run(tree, cwd=ROOT, capture_output=True, text=True)
    check(result.returncode == 0, f"cargo tree: {result.stderr}")
    linked = set(re.findall(r"^(\S+) v(\S+)", result.stdout, re.M))
    check(("rustls", dict(linked)["rustls"]) in linked and len(linked) > 50, f"cargo tree: {sorted(linked)}")
    # Those that only build it have a kind.
    runtime = {(it["name"], it["version"]) for it in listed if it.get("kind", "runtime") == "runtime"}
    check(linked <= runtime, f"{program.name}: not listed: {sorted(linked - runtime)}")
    # Cargo resolves features for the whole workspace: what the tests need of a crate may be listed, too.
    print(f"        {program.name}: all of {len(linked)} linked crates, and {len(listed) - len(linked)} others")
