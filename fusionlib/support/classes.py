"""The classes of objects that boxes are drawn around; a class is told by its place here."""

CLASSES = ("person", "bicycle", "car")
