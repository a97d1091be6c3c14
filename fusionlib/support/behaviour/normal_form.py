"""Definitions of the package in a normal form without names, comments and layout, and how their names are resolved."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = "fusionlib"
ROOT = Path(__file__).resolve().parents[2]  # of the package
UNSEEN = {"ctx", "type_comment", "kind", "type_params", "annotation", "returns", "simple", "lineno"}
# Modules that name and store results. No number depends on them, so their code is not part of a digest.
KEEPING = ("fusionlib.support.behaviour", "fusionlib.support.keys", "fusionlib.support.long_training")
OF_SHELLS = ("_", "display", "get_ipython")  # what Python's shell, doctest and IPython add to the builtins
SAID = ("print", "warn", "info", "warning")  # functions, and methods of loggers, whose calls change no result


@dataclass(frozen=True)
class Reference:
    """A definition of this package, as part of a normal form; `name` None is the whole module."""

    module: str
    name: str | None


@dataclass(frozen=True)
class External:
    """A definition of a third-party package or of the standard library, by its full dotted name."""

    name: str


Form = tuple[object, ...]  # of str, Reference and External


@dataclass(frozen=True)
class Module:
    """The top level of one module and the meaning of its names."""

    name: str
    definitions: dict[str, list[ast.AST]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # a name here to a dotted name
    statements: list[ast.AST] = field(default_factory=list)  # those that run on import, without definitions


# --- modules and names


def path_of(name: str) -> Path:
    """The file of a module of this package by its dotted name, whether it exists or not."""
    path = ROOT.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _module(name: str) -> Module | None:
    """A module of this package by its dotted name, None if there is no such file."""
    path = path_of(name)
    if name.partition(".")[0] != PACKAGE or not path.exists():
        return None
    return collect(Module(name), ast.parse(path.read_text(encoding="utf-8")).body)


def collect(module: Module, body: Iterable[ast.stmt]) -> Module:
    """Fill a module with what its top-level statements define, import and do; return it."""
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom():
                module.imports.update(_imported(node))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                module.definitions.setdefault(node.name, []).append(node)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
                for name in names:
                    module.definitions.setdefault(name, []).append(node)
                if not all(isinstance(target, ast.Name | ast.Tuple) for target in targets):
                    module.statements.append(node)
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                pass
            case ast.If() | ast.Try() | ast.With():
                module.statements.append(node)
                for part in ("body", "handlers", "orelse", "finalbody"):
                    inner = getattr(node, part, [])
                    collect(module, [each for one in inner for each in getattr(one, "body", [one])])
            case ast.Expr(ast.Constant()):
                pass
            case _:
                module.statements.append(node)
    return module


def _imported(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    without_alias = {alias.name.partition(".")[0] for alias in node.names if not alias.asname}
    return {name: name for name in without_alias} | {alias.asname: alias.name for alias in node.names if alias.asname}


@cache
def resolve(dotted: str) -> Reference | External | None:
    """The definition behind a full dotted name; None for a name that this package does not have."""
    if dotted.partition(".")[0] != PACKAGE:
        return External(dotted)
    for kept in KEEPING:
        if dotted.startswith(kept):  # named without its folder
            return External(f"{PACKAGE}.{kept.rpartition('.')[2]}{dotted.removeprefix(kept)}")
    if _module(dotted) is not None:
        return Reference(dotted, None)
    place, _, name = dotted.rpartition(".")
    module = _module(place)
    if module is None:
        return None
    if name in module.definitions:
        return Reference(place, name)
    return resolve(module.imports[name]) if name in module.imports else None


# --- the normal form of a definition


@cache
def normal_form(reference: Reference) -> Form:
    """The statements of its module, then the definition, both without wording; of a module, all of it."""
    module = _module(reference.module)
    own = tuple(part for node in module.statements for part in form(module, node))
    if reference.name is None:
        return (*own, *(Reference(reference.module, name) for name in module.definitions))
    return (*own, *(part for node in module.definitions[reference.name] for part in form(module, node)))


def form(module: Module, node: ast.AST) -> Form:
    """One top-level statement of a module without its wording."""
    return tuple(_Writer(module).write(node, top=True))


class _Writer:
    """Writes one top-level statement down."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.imports = module.imports  # of functions, too, while they are written
        self.parameters: set[str] = set()
        self.numbers: dict[str, str] = {}  # local variable to the name it has here
        self.local: set[str] = set()  # bound by the function itself, so that no global can be meant
        self.renamed: set[str] = set()  # these, and what functions and comprehensions inside it bind
        self.depth = 0  # of functions around

    def write(self, node: object, top: bool = False) -> Iterator[object]:
        match node:
            case None | ast.Pass() | ast.Expr(ast.Constant(str())) | ast.keyword(arg="repr"):
                return
            case list():
                for child in node:
                    yield from ["nothing"] if child is None else self.write(child)  # None is `**`, or no default
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from self._function(node, top)
            case ast.ClassDef():
                yield from ("class", "" if top else self._local(node.name))
                yield from self._fields(node, "name")
            case ast.Name():
                yield from self._name(node.id)
            case ast.Attribute() | ast.Subscript() if (up := _folders_up(node)) is not None:
                yield from self._counted_up(*up)
            case ast.Attribute():
                definition = self._dotted(node)
                if definition is None:
                    yield from ("attribute", node.attr)
                    yield from self.write(node.value)
                else:
                    yield definition
            case ast.Import() | ast.ImportFrom():
                self.imports = {**self.imports, **_imported(node)}
            case ast.Raise():
                yield "raise"
                yield from self.write(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
            case ast.Assert():
                yield "assert"
                yield from self.write(node.test)
            case ast.Expr(ast.Call(func=ast.Name(name) | ast.Attribute(attr=name))) if name in SAID:
                return
            case ast.Constant():
                yield f"{type(node.value).__name__}:{node.value!r}"
            case ast.arg():
                yield f"parameter:{node.arg}"
            case ast.ExceptHandler():
                yield from ("except", self._local(node.name) if node.name else "")
                yield from self._fields(node, "name")
            case ast.AST():
                yield from self._fields(node)
            case _:
                yield repr(node)

    def _counted_up(self, file: ast.expr, folders: int) -> Iterator[object]:
        """A folder above the file, as if the module stood at the package's root."""
        for _ in range(folders - max(0, self.module.name.count(".") - 1)):
            yield from ("attribute", "parent")
        yield from self.write(file)

    def _fields(self, node: ast.AST, *without: str) -> Iterator[object]:
        yield type(node).__name__
        yield "("
        for name, value in ast.iter_fields(node):
            if name not in UNSEEN and name not in without and value not in (None, []):
                yield name
                yield from self.write(value)
        yield ")"

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, top: bool) -> Iterator[object]:
        outermost = self.depth == 0
        if outermost:
            # Decorators and defaults are evaluated outside, where the names of parameters mean something else.
            yield from self.write([*getattr(node, "decorator_list", []), *node.args.defaults, *node.args.kw_defaults])
            before = self.imports
            self.parameters = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
            self.local = _bound(node) - self.parameters
            self.renamed = self.local | (_bound(node, inner=True) - self.parameters)
            self.numbers = {}
        name = getattr(node, "name", "")
        yield type(node).__name__
        yield "" if top else name if outermost else self._local(name) if name else ""
        self.depth += 1
        yield from self._fields(node, "name")
        self.depth -= 1
        if outermost:
            self.imports, self.parameters, self.local, self.renamed = before, set(), set(), set()

    def _local(self, name: str) -> str:
        if name not in self.renamed:
            return name
        return self.numbers.setdefault(name, f"v{len(self.numbers)}")

    def _name(self, name: str) -> Iterator[object]:
        if name in self.parameters:
            yield f"parameter:{name}"
        elif name in self.local or (name in self.renamed and self._global(name) is None):
            yield self._local(name)
        else:  # what an inner function binds may be a global elsewhere in the outer one: then both count
            yield name if name in self.renamed or self._global(name) is None else "global"
            if (definition := self._global(name)) is not None:
                yield definition

    def _global(self, name: str) -> Reference | External | None:
        if name in self.module.definitions:
            return Reference(self.module.name, name)
        if name in self.imports:
            return resolve(self.imports[name])
        return External(f"builtins.{name}") if name not in OF_SHELLS and hasattr(builtins, name) else None

    def _dotted(self, node: ast.Attribute) -> Reference | External | None:
        """What an attribute of a module stands for, as in `F.pad` or `metrics.endpoint_error`; None for any other."""
        names, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name) or inner.id in self.parameters or inner.id not in self.imports:
            return None
        definition = resolve(".".join([self.imports[inner.id], *reversed(names)]))
        return definition if isinstance(definition, External | Reference) else None


def _folders_up(node: ast.expr) -> tuple[ast.expr, int] | None:
    """Of `Path(__file__).resolve().parents[2]`: the part before `parents`, and 2; None for what counts no folders."""
    folders = 0
    while True:
        match node:
            case ast.Attribute(value=inner, attr="parent"):
                node, folders = inner, folders + 1
            case ast.Subscript(value=ast.Attribute(value=inner, attr="parents"), slice=ast.Constant(int(last))):
                node, folders = inner, folders + last + 1
            case _:
                break
    own = any(isinstance(each, ast.Name) and each.id == "__file__" for each in ast.walk(node))
    return (node, folders) if folders and own else None


SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _bound(function: ast.AST, inner: bool = False) -> set[str]:
    """Names that a function binds, without those declared global; with `inner`, those bound in scopes inside it too."""
    bound, nodes, declared = set(), list(ast.iter_child_nodes(function)), set()
    while nodes:
        node = nodes.pop()
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.Global(names=names):
                declared.update(names)
        if inner or not isinstance(node, (*SCOPES, *COMPREHENSIONS)):
            nodes += ast.iter_child_nodes(node)
    return bound - declared
