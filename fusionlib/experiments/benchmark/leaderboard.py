"""The leaderboard: results/benchmark/README.md and a sortable page beside it, made of the committed entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from fusionlib.experiments.benchmark import entries
from fusionlib.metrics.directions import with_arrow
from fusionlib.metrics.statistics import NOT_SIGNIFICANT
from fusionlib.support.command_line import table
from fusionlib.support.files import InputError, write_text

MAIN = ("EPE", "EPE_share", "folds", "Q_CC", "Q_AB/F", "Q_CV", "Q_SSIM")
MORE = ("EN", "MI", "SD", "SF", "AG", "SCD", "VIF", "MS-SSIM", "N_AB/F")
PartRows = tuple[str, str, list[tuple[str, Mapping]]]  # name and digest of a part, its rows
_SIGN = {"better": "+", "worse": "-", NOT_SIGNIFICANT: "="}

HEAD = """# The benchmark: every method on the same misaligned pairs

Made by `python -m fusionlib publish` from the entries in [entries](entries), which `python -m fusionlib score` wrote;
[index.html](index.html) has the same tables to be sorted by a click. Means over the pairs of a part, in brackets the
95 % bootstrap interval over scenes. Beside a value, against Ours pair by pair: `+` better, `-` worse, `=` not
significantly different (5 %, Holm's correction over the metrics of a row). Each row is compared for itself: among
twenty rows one mark may be due to chance, and notebooks 04 and 05 correct over their rows, too. Rows are in the order
of EPE, then of Q_AB/F; a method without a field registers nothing.

- Part: a set of pairs, the level of the deformation, and the side in pixels, as in `m3fd_medium_256`. `zero` deforms
  nothing; `raw` are thermal frames as their camera took them. The digest is that of all images of a part.
- EPE is the end-point error of the field in pixels; EPE_share the mean EPE as a share of the mean of the identity, so 1
  is what no registration leaves (undefined at `zero`); folds the share of pixels where the field folds.
- Q_CC, Q_AB/F, Q_CV and Q_SSIM are the paper's four metrics. EN is the entropy, MI the mutual information with both
  sources (bits), SD the standard deviation, SF the spatial frequency, AG the average gradient, SCD the sum of the
  correlations of differences, VIF the visual information fidelity, MS-SSIM the multi-scale SSIM with both sources, and
  N_AB/F the share of edges that are in neither source.

**What the metrics reward.** Fused images are scored against the ALIGNED infrared. Even so, four numbers are not
enough: the visible image alone, the average of two unregistered images and a sharpened copy of one beat real methods
in some of them ([notebook 13](../../notebooks/13_your_method.ipynb)). EPE alone is about registration.

**Too large to ship** are the retrained weights of CrossRAFT, IMF, IVFWSR and of MURF's coarse registration; `python -m
fusionlib retrain NAME --preset mini` makes them, so that the rows can be checked. MURF's row is without its coarse
registration. Whether published weights that were learned on RoadScene have seen our test pairs is not known.

**How to submit.** `python -m fusionlib benchmark make roadscene m3fd drawn -o DIR --levels medium`, fuse `DIR/ir` with
`DIR/vi`, then `python -m fusionlib score FUSED --benchmark DIR --fields FIELDS --name NAME -o NAME.json`. Put
`NAME.json` and a method card `NAME.md` into `results/benchmark/entries`, run `python -m fusionlib publish`, and open a
pull request. The headings of a card are
{headings}. A test checks the form of both, that the means are those of the
scores, and that the images were those of the benchmark. Methods may be trained on anything but the test pairs of a
part ([data/splits](../../data/splits)); the card says on what. Parts of another size or level are added to an entry by
`score --add`.
"""


def load(folder: Path = entries.FOLDER) -> list[dict]:
    """All entries of a folder, each checked, with its card as `card`; InputError names what is wrong."""
    all_entries = []
    for path in sorted(folder.glob("*.json")):
        entry = entries.read(path)
        if entry["name"] != path.stem:
            raise InputError(f"{path} is the entry of {entry['name']}: name the file as the method.")
        all_entries.append(entry | {"card": entries.read_card(path.with_suffix(".md"))})
    return all_entries


def write(folder: Path = entries.FOLDER.parent) -> list[Path]:
    """Write both pages from the entries below a folder; none without entries."""
    if not (all_entries := load(folder / "entries")):
        return []
    parts = list(parts_of(all_entries))
    return [
        write_text(folder / "README.md", page(all_entries, parts)),
        write_text(folder / "index.html", sortable(parts)),
    ]


def page(all_entries: Sequence[Mapping], parts: Sequence[PartRows]) -> str:
    """The leaderboard as Markdown, of entries and of what `parts_of` makes of them."""
    sections = [HEAD.format(headings=", ".join(f"`## {heading}`" for heading in entries.CARD))]
    trained = {entry["name"]: _first_sentence(entry["card"]["What it was trained on"]) for entry in all_entries}
    for part, digest, rows in parts:
        sections.append(f"## {part}\n\n{_pairs(rows)} pairs; digest `{digest}`.\n")
        for metrics, words in ((MAIN, ["method", "trained on"]), (MORE, ["method"])):
            lines = [[*words, *map(with_arrow, metrics)], ["---"] * (len(metrics) + len(words))]
            for name, result in rows:
                facts = [f"[{name}](entries/{name}.md)", trained[name]][: len(words)]
                lines.append([*facts, *(_cell(result, metric) for metric in metrics)])
            sections.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(sections)


def sortable(parts: Sequence[PartRows]) -> str:
    """The same tables as one HTML file; a click on a heading sorts by it."""
    blocks = []
    for part, _, rows in parts:
        head = "".join(f"<th>{escape(text)}</th>" for text in ("method", *map(with_arrow, (*MAIN, *MORE))))
        body = []
        for name, result in rows:
            cells = [f'<td><a href="entries/{escape(name)}.md">{escape(name)}</a></td>']
            for metric in (*MAIN, *MORE):
                value = result["means"].get(metric, {}).get("mean", "")
                cells.append(f'<td data-value="{value}">{escape(_cell(result, metric))}</td>')
            body.append(f"<tr>{''.join(cells)}</tr>")
        body_html = "\n".join(body)
        blocks.append(
            f"<h2>{escape(part)}</h2>\n<p>{_pairs(rows)} pairs</p>\n"
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body_html}</tbody></table>"
        )
    return _PAGE.replace("BLOCKS", "\n".join(blocks))


def in_words(entry: Mapping) -> str:
    """What `score` prints: the means of each part, and how they compare."""
    lines = []
    for part in entry["parts"]:
        images = len(part["scores"])
        lines.append(
            f"{entry['name']}, {part['part']}: mean over {images} images, 95 % interval, against others pair by pair"
        )
        rows = [["metric", "mean", "interval", *part["against"]]]
        for metric, facts in part["means"].items():
            verdicts = [_against(part, other, metric) for other in part["against"]]
            few = f" ({facts['images']} images)" if facts["images"] < images else ""
            rows.append([with_arrow(metric), f"{facts['mean']:.4g}", _interval(facts, " .. ") + few, *verdicts])
        lines.append(table(rows))
        if undefined := sorted({name for values in part["scores"].values() for name in values} - part["means"].keys()):
            lines.append(f"Undefined on these images: {', '.join(undefined)}.")
        if "level" in part and not part["against"]:
            lines.append("No entry of the project has this part: compare with your own by --against.")
    return "\n".join(lines)


def _against(part: Mapping, other: str, metric: str) -> str:
    facts = part["against"][other].get(metric)
    return f"{facts['verdict']} ({facts['difference']:+.3g}, p {facts['p']:.2g})" if facts else ""


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].removesuffix(".").replace("|", "/")


def parts_of(all_entries: Sequence[Mapping]) -> Iterator[PartRows]:
    """Each part with its digest and its rows, (name, part of the entry), in the order of the leaderboard."""
    digests = {
        part["part"]: part["digest"] for entry in all_entries for part in entry["parts"] if entry["name"] == "ours"
    }
    digests |= {
        part["part"]: part["digest"] for entry in all_entries for part in entry["parts"] if part["part"] not in digests
    }
    ours = next((entry for entry in all_entries if entry["name"] == "ours"), {"parts": []})
    for name, digest in sorted(digests.items()):
        reference = next((part for part in ours["parts"] if part["digest"] == digest), None)
        rows = []
        for entry in all_entries:
            for part in (part for part in entry["parts"] if part["digest"] == digest):
                compared = entry is not ours and reference is not None
                against = {"ours": entries.compare(part, reference)} if compared else {}
                rows.append((entry["name"], part | {"against": against}))
        yield name, digest, sorted(rows, key=lambda row: _rank(row[1]))


def _rank(part: Mapping) -> tuple[float, float]:
    mean = {metric: facts["mean"] for metric, facts in part["means"].items()}
    return mean.get("EPE", float("inf")), -mean["Q_AB/F"]


def _pairs(rows: Sequence[tuple[str, Mapping]]) -> int:
    return max(len(part["scores"]) for _, part in rows)


def _cell(part: Mapping, metric: str) -> str:
    facts = part["means"].get(metric)
    if facts is None:
        return "no field" if metric in MAIN[:3] and not part.get("fields") else ""
    sign = _SIGN[part["against"]["ours"][metric]["verdict"]] if metric in part["against"].get("ours", {}) else ""
    return f"{_digits(facts['mean'])} [{_interval(facts, ', ')}] {sign}".rstrip()


def _interval(facts: Mapping, link: str) -> str:
    """Both ends of an interval, or why there is none."""
    return "too few scenes" if facts["low"] is None else f"{_digits(facts['low'])}{link}{_digits(facts['high'])}"


def _digits(value: float) -> str:
    """Three digits, or a whole number."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The benchmark</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; }
table { border-collapse: collapse; margin-bottom: 2em; }
th, td { padding: 0.2em 0.7em; border-bottom: 1px solid #ccc; text-align: left; white-space: nowrap; }
th { cursor: pointer; background: #f3f3f3; }
</style></head><body>
<h1>The benchmark: every method on the same misaligned pairs</h1>
<p>Click a heading to sort by it. <a href="README.md">README.md</a> says what the numbers are and how to submit.
Beside a value, against Ours pair by pair: + better, - worse, = not significantly different.</p>
BLOCKS
<script>
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex, down = head.dataset.down !== "yes";
  head.dataset.down = down ? "yes" : "no";
  const key = row => { const cell = row.cells[column], value = cell.dataset.value;
    return value === undefined ? cell.textContent : value === "" ? Infinity : Number(value); };
  const rows = [...body.rows].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
  body.append(...(down ? rows : rows.reverse()));
};
</script></body></html>
"""
