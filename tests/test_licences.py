"""Every installed package's licence lets people use, change and pass it on; or there is a reason why it is here all the same."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT

PERMISSIVE = re.compile(
    r"MIT(-0|-CMU)?( License)?|(The )?MIT License \(MIT\)|BSD.*|[23]-Clause BSD.*|Apache.*|OSI Approved :: Apache.*|ISC.*|"
    r"PSF-2\.0|BSL-1\.0|Python Software Foundation License|Dual License|DFSG approved|The Unlicense.*|Zlib",
    re.IGNORECASE,
)
EXCEPTIONS = {
    "certifi": "MPL-2.0 of a list of certificates, which is passed on unchanged",
    "tqdm": "MPL-2.0 for a part of it, which is passed on unchanged",
    "hypothesis": "MPL-2.0; used by the tests alone, passed on to nobody",
    "pathspec": "MPL-2.0; used by the lint alone, passed on to nobody",
    "axe-playwright-python": "says nothing in its metadata; MIT, and axe-core in it MPL-2.0: used by the tests alone, passed on to nobody",
    "numpy": "BSD-3-Clause: the whole text stands where its name should",
    "scipy": "BSD-3-Clause: the whole text stands where its name should",
    "nvidia": "CUDA's libraries, under NVIDIA's own terms: in GPU images alone, for which NVIDIA allows it (EULA of the CUDA toolkit)",
}


def licences(found: Distribution) -> list[str]:
    """What its metadata say, the most exact of three places: each of it has to be good."""
    if expression := found.metadata.get("License-Expression"):
        return [part for part in re.split(r"(?:\s+WITH \S+)?\s+(?:AND|OR)\s+|[()]+", expression) if part]
    rows = [row for row in found.metadata.get_all("Classifier") or [] if row.startswith("License ::")]
    return [row.split("::")[-1].strip() for row in rows] or [(found.metadata.get("License") or "unknown").splitlines()[0]]


def installed(folder: Path) -> Iterator[Distribution]:
    for site in folder.glob("lib/python3*/site-packages"):
        yield from distributions(path=[str(site)])


@pytest.mark.parametrize("environment", [".venv", ".venv-gluon"])
def test_every_licence_is_permissive_or_has_its_reason(environment: str) -> None:
    packages = list(installed(ROOT / environment))
    if not packages:
        pytest.skip(f"{environment} is not here")
    wrong = {}
    for found in packages:
        name = found.metadata["Name"]
        known = name in EXCEPTIONS or name.split("-")[0] in EXCEPTIONS
        if not known and not all(PERMISSIVE.fullmatch(word) for word in licences(found)):
            wrong[name] = licences(found)
    assert wrong == {}, "ask whether it may be passed on; then write down why in EXCEPTIONS, or take another package"
