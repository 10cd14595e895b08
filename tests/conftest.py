"""Settings that must stand before torch, matplotlib or a tokenizer is first imported."""

import os

os.environ.update(MPLBACKEND="Agg", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", JIGSAW_STATIC="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings  # noqa: E402

# No deadline: on a busy machine an example may well take seconds. Derandomised: a failure can be repeated.
settings.register_profile("lab", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("lab")
