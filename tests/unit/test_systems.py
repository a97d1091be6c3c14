"""The registry of compared systems: complete, true of the code, and a new system is one file and one entry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import halfway
import pandas as pd
import pytest
import torch

from fusionlib import methods
from fusionlib.data import FACTS, download, systems
from fusionlib.methods.baselines.network_method import FusingMethod, NetworkMethod
from fusionlib.support.files import InputError

NAMES = ["almfnet", "bsafusion", "corrmlp", "crossraft", "datfuse", "emma", "imf"]
NAMES += ["ivfwsr", "matr", "murf", "rmrfus", "superfusion", "tardal", "ydtr"]


def test_all_systems_of_tables_1_2_and_7_are_there() -> None:
    assert systems.names() == NAMES
    printed = pd.read_csv(FACTS / "paper_tables.csv")
    titles = {systems.system(name).title for name in NAMES}
    rows = set(printed[printed["table"].isin([1, 2])]["row"]) - {"Ours"}
    assert rows <= titles


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_true_of_the_code(name: str) -> None:
    system = systems.system(name)
    method = systems.imported(system.method)
    assert method.name == name
    fuses = system.kind == "fuses" or system.moves == "features"
    assert issubclass(method, NetworkMethod) and issubclass(method, FusingMethod) == fuses
    assert (system.moves is None) == (system.kind == "fuses")
    assert callable(systems.imported(system.loss)) and issubclass(systems.imported(system.network), torch.nn.Module)
    assert system.paper and system.licence and system.retraining


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_says_where_code_and_weights_come_from(name: str) -> None:
    system = systems.system(name)
    assert re.fullmatch(r"[\w-]+/[\w-]+", system.upstream) and re.fullmatch("[0-9a-f]{40}", system.commit)
    for file, facts in system.files.items():
        seen = "sha256" in facts
        if seen:
            assert re.fullmatch("[0-9a-f]{64}", facts["sha256"]) and facts["bytes"] > 0
        else:
            assert re.fullmatch("[0-9a-f]{40}", facts["git_blob"]) and "bytes" not in facts
        assert facts["url"].startswith(f"https://raw.githubusercontent.com/{system.upstream}/{system.commit}/")
        part = system.published if seen else system.untried
        assert any(Path(file).parent == Path(published).parent for published in part.values())
    for published in (system.published | system.untried).values():
        assert any(file.startswith(published) for file in system.files)
    assert not system.published.keys() & system.untried.keys()
    assert ("" in system.published) == (system.budget is None)
    assert (system.partial is not None) == (bool(system.published) and "" not in system.published)


def test_the_names_of_the_weights_and_of_the_sets_are_different() -> None:
    assert not {*download.set_names(), download.WEIGHTS} & set(systems.names())


def test_a_new_system_is_one_file_and_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halfway.install(tmp_path, monkeypatch)
    network = methods.network("halfway")
    weights = tmp_path / "halfway.pth"
    torch.save(network.state_dict(), weights)
    ir, vi = torch.rand(2, 2, 1, 40, 48)
    fused = methods.load("halfway", weights).fuse(ir, vi)
    with torch.no_grad():
        torch.testing.assert_close(fused.image, network(ir, vi).clamp(0, 1))
    assert "halfway" in methods.names() and ("halfway", "fuses") in [row[:2] for row in methods.overview()]
    chain = methods.load("identity+halfway", weights)
    torch.testing.assert_close(chain.fuse(ir, vi).image, fused.image)


def test_what_is_no_entry_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no compared system 'magic'; choose one of almfnet, .*ydtr\.$"):
        systems.system("magic")
    system = halfway.install(tmp_path, monkeypatch, network="halfway_code.Missing")
    with pytest.raises(InputError, match=r"There is no halfway_code\.Missing .*correct the entry"):
        systems.imported(system.network)
    for facts, message in (
        ({"kind": "guesses"}, "give one of fuses, registers, both"),
        ({"colour": "red"}, "not the entry"),
    ):
        (tmp_path / "methods" / "halfway.json").write_text(json.dumps(halfway.FACTS | facts), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            systems.system("halfway")
