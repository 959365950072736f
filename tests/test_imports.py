"""No module imports itself, directly or through others; imports inside functions count."""

from graphlib import TopologicalSorter

import grimp


def test_no_import_cycles() -> None:
    graph = grimp.build_graph("genoscan")
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError with the modules of a cycle
