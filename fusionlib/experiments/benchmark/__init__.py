"""The benchmark that others can use: make it, score what a method makes of it, keep the entries and their table.

One command makes the folder, one scores it (`commands`); neither needs any knowledge of the rest of the library.
"""
