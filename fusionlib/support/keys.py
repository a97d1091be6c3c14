"""Keys of kept results: all that a result depends on, part by part, so that one can say which part has changed.

A key reads like `settings=0f3a91c2 RoadScene=77ab01d4 training=1 images=1`: settings and data as digests, components of
the library by the version of their behaviour (`fusionlib.support.behaviour`). It stands in the header of weights and in
the column `made_by` of tables. A result fits while its key is the one that today's settings, data and code give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass

from fusionlib.support.behaviour import record
from fusionlib.support.files import fingerprint

NEUTRAL = {"neutral": True}  # metadata of a setting whose default does what was done before it existed


@dataclass(frozen=True)
class Key:
    """What a result depends on: the name of each part to a short text without spaces.

    >>> Key.parse("size=256 training=1").differing(Key.parse("size=256 training=2"))
    ['training']
    """

    parts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, behaviour: Iterable[str] = (), **facts: object) -> Key:
        """A key of facts, by name, and of components whose behaviour counts.

        A short word or a whole number stands as it is, anything else as the digest of its JSON form.

        Raises:
            ValueError: a fact has the name of one of the components.
        """
        return cls({name: _short(value) for name, value in facts.items()}) | cls(record.versions(behaviour))

    @classmethod
    def parse(cls, text: str) -> Key:
        """A key from its text; what is no key gives the empty one, which fits nothing."""
        return cls(dict(part.split("=", 1) for part in text.split() if "=" in part))

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.parts.items())

    def __or__(self, other: Key) -> Key:
        """Both keys as one.

        Raises:
            ValueError: they give one name to two different things, so that a change of the first would go unseen.
        """
        if clashing := [name for name in self.parts.keys() & other.parts.keys() if name in self.differing(other)]:
            raise ValueError(f"Two keys differ in {', '.join(sorted(clashing))}, which only one of them can name.")
        return Key({**self.parts, **other.parts})

    def renamed(self, old: str, new: str) -> Key:
        """The key with another name for a part, as for validation pairs of a set whose training pairs have one, too."""
        return Key({new if name == old else name: text for name, text in self.parts.items()})

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits for the whole key."""
        return fingerprint(self.parts)[:8]

    def differing(self, other: Key) -> list[str]:
        """Names of the parts in which two keys differ, whatever their order."""
        both = {**self.parts, **other.parts}
        return [name for name in both if self.parts.get(name) != other.parts.get(name)]


def settings(config: object) -> object:
    """A tree of dataclasses as JSON has it, for a digest; a `NEUTRAL` setting counts only where it is not the default.

    So a new switch that is off leaves every key as it was, and 2 is 2.0 where a float is asked for.
    """
    if is_dataclass(config) and not isinstance(config, type):
        return {
            each.name: settings(float(value) if each.type == "float" and type(value) is int else value)
            for each in fields(config)
            for value in [getattr(config, each.name)]
            if not (each.metadata.get("neutral") and getattr(config, each.name) == each.default)
        }
    if isinstance(config, Mapping):
        return {str(name): settings(value) for name, value in config.items()}
    return [settings(each) for each in config] if isinstance(config, list | tuple) else config


def _short(value: object) -> str:
    text = str(value)
    plain = isinstance(value, bool | int | str) and 0 < len(text) <= 12 and not set(text) & set(" =\n")
    return text if plain else fingerprint(settings(value))[:8]
