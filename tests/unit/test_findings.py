"""The findings say what the tables say, also when that changes, and the pages that hold them are short and linked."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fusionlib.report import findings, registration_findings, verdicts
from fusionlib.report.our_numbers import BENCH
from fusionlib.report.registration_findings import RAW, ROADS
from fusionlib.support.paths import SHIPPED

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped tables and logs, which a test may change."""
    shutil.copytree(SHIPPED.tables, tmp_path / "mini" / "tables")
    shutil.copytree(SHIPPED.weights, tmp_path / "mini" / "weights", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "mini"


def edit(folder: Path, name: str, column: str, factor: float, **where: str) -> None:
    """Multiply a column of a table where other columns have given values."""
    path = folder / "tables" / name
    table = pd.read_csv(path, dtype={"pair": str})
    table.loc[np.logical_and.reduce([table[key] == value for key, value in where.items()]), column] *= factor
    table.to_csv(path, index=False)


def test_eight_to_twelve_findings_in_short_sentences() -> None:
    found = findings.findings(SHIPPED.folder)
    assert 8 <= len(found) <= 12
    for each in found:
        assert re.match(r"\*\*[^*]+\.\*\* ", each.text) and each.text.endswith(".")
        assert each.notebooks and all(re.fullmatch(r"\d\db?", number) for number in each.notebooks)
        long = [sentence for sentence in re.split(r"\. |; ", each.text) if len(sentence.split()) > 40]
        assert not long, "a sentence of more than 40 words is hard to read at once"
    assert "has not been run" in findings.basis(SHIPPED.folder)


def test_numbers_and_words_follow_the_tables(folder: Path) -> None:
    ours = pd.read_csv(folder / "tables" / ROADS).query("method == 'ours'")
    sums = (
        ours.assign(identity=ours["EPE"] / ours["EPE_share"]).groupby(["level", "dataset"])[["EPE", "identity"]].sum()
    )
    left = sums["EPE"] / sums["identity"]  # of all pairs together, not the mean of the pairs' own shares
    small = registration_findings.small(folder)
    assert re.search(rf"Ours leaves [^.]*{100 * left['light', 'TNO']:.0f} % \(\d+ to \d+\) on TNO", small)
    assert "than no registration: `ours_robust` on M3FD and SimpleITK on RoadScene; " in small
    assert "significantly worse: SimpleITK on TNO." in small and "(2 scenes) on LLVIP" in small
    medium = registration_findings.large(folder)
    assert re.search(rf"{100 * left['medium', 'M3FD']:.0f} % \(\d+ to \d+\) on M3FD", medium)
    edit(folder, ROADS, "EPE_share", 0.5, method="ours", level="light")
    small = registration_findings.small(folder)
    assert re.search(rf"Ours leaves [^.]*{50 * left['light', 'TNO']:.0f} % \(\d+ to \d+\) on TNO", small)
    edit(folder, ROADS, "EPE_share", 4, method="ours", level="light")
    worse = "worse: Ours on RoadScene, Ours on M3FD, Ours on TNO and SimpleITK on TNO."
    assert worse in registration_findings.small(folder)

    assert re.search(
        r"At `light`: The average[^;]*significantly better than Ours in [^;]*Q_CC", findings._fusion(folder)
    )
    edit(folder, "table1.csv", "Q_CC", 2, method="ours", level="light")
    assert re.search(r"At `light`: The average[^;]*significantly worse [^;]*Q_CC", findings._fusion(folder))

    path = folder / "tables" / "target_awareness_found.csv"
    table = pd.read_csv(path)
    other = table["row"] == "without l_ob"
    for points, says in ((-20, "significant"), (0, "not significant")):
        changed = table.assign(**{"mAP50:90": 0.3 + table["seed"] / 100 + other * points / 100})
        changed.to_csv(path, index=False)
        text = findings._detection(folder)
        assert f"points on M3FD ({says})" in text and ("by +20 points" in text) == (points < 0)
    assert re.search(r"better on all sets than \d+ of the \d+ other rows, but not than [^;]*`visible`", text)
    for name in pd.read_csv(folder / "tables" / "detection.csv")["method"].unique():
        edit(folder, "detection.csv", "mAP50:90", 1 if name.startswith("ours") else 0.1, method=name)
    assert re.search(r"all sets than (\d+) of the \1 other rows\.", findings._detection(folder))
    edit(folder, "registration_bench.csv", "EPE", 0.1, method="ours", level="medium")
    large = registration_findings.large(folder)
    assert re.search(r"at `medium` \(significant\)", large) and "not significant" not in large

    assert "how much of the registration is lost" in findings._sweeps(folder)
    for row in pd.read_csv(folder / "tables" / "table4.csv")["row"].unique():
        edit(folder, "table4.csv", "EPE", 0.5, row=row)
    assert "is lost" not in findings._sweeps(folder)

    assert "cannot be reached" in findings._values(folder)
    edit(folder, "table1.csv", "Q_CC", 2, method="bound", level="medium")
    assert "can be reached" in findings._values(folder)


def test_what_moves_at_rest_is_said(folder: Path) -> None:
    assert "at most 0.0" in registration_findings.rest(folder)
    rows = pd.read_csv(folder / "tables" / "at_rest.csv")
    rows.loc[(rows["method"] == "ours_robust") & (rows["input"] == "noise"), "moved"] = 2 / 256
    rows.to_csv(folder / "tables" / "at_rest.csv", index=False)
    assert "at most 2.00 px" in registration_findings.rest(folder)


def test_what_has_no_table_has_no_finding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = [each for each in findings.FINDINGS if each[0] != ("12",)]
    monkeypatch.setattr(findings, "FINDINGS", quick)
    for name in (RAW, "detection.csv", "cost_times.csv"):
        (folder / "tables" / name).unlink()
    table = pd.read_csv(folder / "tables" / BENCH)
    table[table["method"] != "simpleitk"].to_csv(folder / "tables" / BENCH, index=False)  # it is being made
    assert len(findings.findings(folder)) == len(quick) - 5
    assert findings.findings(folder.parent / "paper") == []


def test_chance_is_that_of_shuffled_rows(folder: Path) -> None:
    """By hand: of five rows with different ranks and no agreement, one keeps its rank on average."""
    lines = verdicts.compare(folder).query("table == 1 and metric == 'Q_CC'").copy()
    assert set(lines["verdict"]) <= {verdicts.RANKED, verdicts.DIFFERS}  # the paper's lie far above all intervals
    chance = verdicts.by_chance(lines, draws=4000).loc["all"]
    assert chance["by chance"] == pytest.approx(1, abs=0.1)
    exact = verdicts.by_chance(lines.assign(ours=lines["paper"], low=lines["paper"], high=lines["paper"])).loc["all"]
    assert exact["by chance"] < 2.5 and verdicts.by_chance(lines).equals(verdicts.by_chance(lines))
    alike = lines.assign(ours=lines["paper"], low=0.0, high=1.0, verdict=verdicts.AGREES)
    assert verdicts.by_chance(alike).loc["all"].tolist() == [5, 5, 1]


def test_the_readme_is_short_and_its_links_lead_somewhere(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 220
    for page in ("README.md", "CONTRIBUTING.md", "results/README.md", "data/README.md"):
        text = (root / page).read_text(encoding="utf-8")
        for link in LINK.findall(re.sub(r"`[^`]*`", "", text)):
            if "://" in link:
                continue
            name, _, anchor = link.partition("#")
            target = ((root / page).parent / name) if name else root / page
            assert target.exists(), f"{page} links to {link}"
            if anchor:
                heads = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, link


def test_the_page_opens_with_the_findings_and_folds_every_table(root: Path) -> None:
    page = (root / "results" / "README.md").read_text(encoding="utf-8")  # as written, which test_verdicts compares
    assert "([notebook 11](mini/executed/11_" in page
    in_order = ("## What came out", "| table | agrees", "<details>", "### Tables", "## Results that outlive")
    assert [page.index(text) for text in in_order] == sorted(page.index(text) for text in in_order)
    folds = page.split("### Tables")[1]
    assert folds.count("<details>") == folds.count("</details>") == 10
    outside = re.sub(r"<details>.*?</details>", "", page.split("### Tables")[1], flags=re.DOTALL)
    assert "| --: |" not in outside.split("## Registration")[0]  # every table is folded
