"""Whether controls that ask the kernel work here.

Set JIGSAW_STATIC=1 (as the notebook runner does) to keep a notebook static even inside a kernel.
"""

from __future__ import annotations

from IPython import get_ipython

from helpers.show.watch import in_a_batch


def front_end_present() -> bool:
    """Whether controls work here: a kernel with ipywidgets, and neither JIGSAW_STATIC nor PAPERMILL set."""
    return not in_a_batch() and type(get_ipython()).__name__ == "ZMQInteractiveShell"
