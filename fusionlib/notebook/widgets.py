"""Controls above a picture: they make a function of `fusionlib.notebook.explore` interactive.

An `Explorer` shows its first picture wherever a notebook is shown. Where there is a kernel it answers its controls;
on GitHub, in HTML and in a PDF the picture stands alone. Every control has a label and is reached with the Tab key;
arrows move it, and it answers when it is released.
"""

from __future__ import annotations

import base64
import html
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import ipywidgets
from matplotlib.figure import Figure
from torch import Tensor

from fusionlib import data
from fusionlib.data import Pair
from fusionlib.notebook import explore
from fusionlib.notebook.plotting import png
from fusionlib.support.files import InputError

Number = int | float
LARGEST = 1024  # pixels of the longer side of an uploaded pair; larger ones are reduced, or a laptop's memory is full
CLASS = "fusionlib-explorer"  # the browser tests look for it
_LABEL = {"description_width": "8em"}
_CALM = {"style": _LABEL, "continuous_update": False}


class Explorer(ipywidgets.VBox):
    """A picture under controls: whenever one of them changes, `draw` is called with the values of all, by name.

    An InputError of `draw` is shown in one line below the controls, and the picture stays as it was. Its warnings are
    shown there too, with the new picture.
    """

    def __init__(self, draw: Callable[..., Figure], /, **controls: ipywidgets.ValueWidget) -> None:
        self.draw, self.controls = draw, controls
        natural = ipywidgets.Layout(align_self="flex-start", max_width="100%")  # a box would stretch it
        self.note, self.picture = ipywidgets.HTML(), ipywidgets.Image(format="png", layout=natural)
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        super().__init__([ipywidgets.Box(list(controls.values()), layout=wrap), self.note, self.picture])
        self.add_class(CLASS)
        self.first = png(draw(**self.state))
        self.picture.value = self.first
        for control in controls.values():
            control.observe(self.update, "value")

    @property
    def state(self) -> dict[str, object]:
        """The values of the controls by name."""
        return {name: control.value for name, control in self.controls.items()}

    def update(self, change: object = None) -> None:
        """Draw the picture again."""
        messages = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.picture.value = png(self.draw(**self.state))
            except InputError as error:
                messages = [f"⚠ {error}"]
        messages += [f"Note: {warning.message}" for warning in caught if issubclass(warning.category, UserWarning)]
        self.note.value = "<br>".join(html.escape(line) for line in messages)

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        bundle = super()._repr_mimebundle_(**options)
        return bundle | {"image/png": base64.b64encode(self.first).decode()}


def compare(pictures: Mapping[str, Tensor], first: str, second: str, view: str = "swipe") -> Explorer:
    """Any two of some images of one size in one frame, see `explore.compare`.

    Args:
        pictures: title to image (1, H, W) or (3, H, W) in [0, 1].
        first, second: titles of the two at the beginning.
        view: one of `explore.VIEWS`, at the beginning.
    """
    return Explorer(
        lambda **state: explore.compare(pictures, **state), **compare_controls(pictures, first, second, view)
    )


def compare_controls(
    titles: Iterable[str], first: str, second: str, view: str = "swipe"
) -> dict[str, ipywidgets.ValueWidget]:
    """The controls of `explore.compare`, for an `Explorer` that has others, too; arguments as those of `compare`."""
    titles, position = list(titles), 25 if view == "checkerboard" else 50
    return {
        "first": choice("first", titles, first),
        "second": choice("second", titles, second),
        "position": slider("position, %", position, 0, 100, 5, "where the swipe's border is, how large the tiles are"),
        "view": switch("view", explore.VIEWS, view),
    }


# --- controls


def slider(
    label: str, value: Number, low: Number, high: Number, step: Number, tip: str = ""
) -> ipywidgets.IntSlider | ipywidgets.FloatSlider:
    """A slider from `low` to `high`; of whole numbers if all four are."""
    whole = all(isinstance(number, int) for number in (value, low, high, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    form = {} if whole else {"readout_format": ".2f" if step < 0.1 else ".1f"}
    return kind(value, min=low, max=high, step=step, description=label, tooltip=tip or label, **_CALM, **form)


def log_slider(label: str, value: float, low: int, high: int) -> ipywidgets.FloatLogSlider:
    """A slider of powers of ten, from 10^low to 10^high."""
    form = {"base": 10, "min": low, "max": high, "step": 0.05, "readout_format": ".3f"}
    return ipywidgets.FloatLogSlider(value, description=label, tooltip=label, **_CALM, **form)


def choice(label: str, options: Sequence[str] | Mapping[str, object], value: object = None) -> ipywidgets.Dropdown:
    """One of many, from a list that drops down; by default the first."""
    first = next(iter(options.values() if isinstance(options, Mapping) else options))
    selected = first if value is None else value
    entries = list(options.items()) if isinstance(options, Mapping) else list(options)
    return ipywidgets.Dropdown(options=entries, value=selected, description=label, tooltip=label, style=_LABEL)


def switch(label: str, options: Sequence[str], value: str | None = None) -> ipywidgets.ToggleButtons:
    """One of a few, as buttons side by side; by default the first."""
    beside = ipywidgets.Layout(width="auto", display="flex", align_items="baseline")  # else the label stands above
    style = {"button_width": "9em", "description_width": "initial"}
    return ipywidgets.ToggleButtons(
        options=list(options),
        value=value or options[0],
        description=label,
        tooltips=list(options),
        style=style,
        layout=beside,
    )


def upload(label: str) -> ipywidgets.FileUpload:
    """A button that takes one image file."""
    accept = ",".join(data.IMAGE_SUFFIXES)
    return ipywidgets.FileUpload(
        accept=accept, multiple=False, description=label, tooltip=label, layout=ipywidgets.Layout(width="16em")
    )


# --- an uploaded pair


def uploaded_pair(ir: Sequence[Mapping], vi: Sequence[Mapping]) -> Pair | None:
    """The pair that two `upload` buttons were given; None as long as one of them has nothing.

    Args:
        ir, vi: values of `ipywidgets.FileUpload`: files with `name` and `content`.

    Raises:
        InputError: as `data.read_pair`, naming the files as the reader does.
    """
    if not (ir and vi):
        return None
    with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paths, names = [], {}
        for place, (one,) in (("infrared", ir), ("visible", vi)):
            paths.append(Path(folder) / place)  # the name given may be too long for a file, or none at all
            names[str(paths[-1])] = one["name"]
            paths[-1].write_bytes(one["content"])
        name = Path(vi[0]["name"]).stem
        try:
            pair = data.read_pair(*paths, name=name)
            height, width = pair.ir.shape[-2:]
            if (most := max(height, width)) > LARGEST:
                size = tuple(max(32, round(side * LARGEST / most)) for side in (height, width))
                pair = data.read_pair(*paths, size=size, name=name)
        except InputError as error:
            raise InputError(_named(str(error), names)) from None
    messages = dict.fromkeys(_named(str(warning.message), names) for warning in caught)
    if max(height, width) > LARGEST:
        messages[f"{width}x{height} pixels were reduced to {pair.ir.shape[-1]}x{pair.ir.shape[-2]}."] = None
    for line in messages:
        warnings.warn(line, stacklevel=2)
    return pair


def _named(text: str, names: Mapping[str, str]) -> str:
    """A message with the user's names in place of the files that this program has made."""
    for path, name in names.items():
        text = text.replace(path, name)
    return text
