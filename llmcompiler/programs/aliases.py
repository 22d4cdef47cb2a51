"""Which values of a program may be one object: alias classes (Steensgaard's analysis)."""

from __future__ import annotations


class Aliases:
    """Which values may be one object. Classes are numbers; ``find`` gives the one in force."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._contents: dict[int, int] = {}
        self._container: set[int] = set()
        self._variables: dict[str, int] = {}
        self.unions = 0
        """How often two classes became one."""

    def fresh(self, *, container: bool = True) -> int:
        """A new class."""
        number = len(self._parent)
        self._parent.append(number)
        if container:
            self._container.add(number)
        return number

    def find(self, number: int) -> int:
        """The class that stands for ``number``."""
        parent = self._parent
        root = number
        while parent[root] != root:
            root = parent[root]
        while parent[number] != root:
            parent[number], number = root, parent[number]
        return root

    def unify(self, first: int, second: int) -> int:
        """Make two classes one, and their contents."""
        work = [(first, second)]
        while work:
            root, absorbed = map(self.find, work.pop())
            if root == absorbed:
                continue
            self.unions += 1
            self._parent[absorbed] = root
            if absorbed in self._container:
                self._container.add(root)
            inner = self._contents.pop(absorbed, None)
            if inner is not None:
                if root in self._contents:
                    work.append((self._contents[root], inner))
                else:
                    self._contents[root] = inner
        return self.find(first)

    def contents(self, number: int) -> int:
        """The class of what values of a class hold."""
        root = self.find(number)
        if root not in self._contents:
            self._contents[root] = self.fresh()
        return self.find(self._contents[root])

    def recursive(self) -> int:
        """A class of values that hold values of the class itself, such as JSON."""
        number = self.fresh()
        self._contents[number] = number
        return number

    def variable(self, name: str) -> int:
        """The class of a variable's values."""
        if name not in self._variables:
            self._variables[name] = self.fresh(container=False)
        return self.find(self._variables[name])

    def mark_container(self, number: int) -> None:
        """Values of the class may be lists, sets or dicts."""
        self._container.add(self.find(number))

    def is_container(self, number: int) -> bool:
        """Whether values of the class may be changed in place."""
        return self.find(number) in self._container

    def reach(self, number: int) -> set[int]:
        """A class and all that its values hold, at any depth."""
        out: set[int] = set()
        root = self.find(number)
        while root not in out:
            out.add(root)
            if root not in self._contents:
                break
            root = self.find(self._contents[root])
        return out
