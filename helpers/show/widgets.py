"""Whether controls that ask the kernel work here.

Set JIGSAW_STATIC=1 (as the notebook runner does) to keep a notebook static even inside a kernel.
"""

from __future__ import annotations

import os

from IPython import get_ipython


def front_end_present() -> bool:
    """Whether controls work here: a kernel with ipywidgets, and neither JIGSAW_STATIC nor PAPERMILL set."""
    if any(os.environ.get(name, "") not in ("", "0") for name in ("JIGSAW_STATIC", "PAPERMILL")):
        return False
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"
