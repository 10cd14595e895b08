"""Checkpoints: what stands in its place is whole, what is not is set aside, and there is one before it."""

from pathlib import Path

import pytest

from helpers.errors import UserError
from helpers.files import DamagedFile
from helpers.model import build
from helpers.study import checkpoints
from helpers.study.checkpoints import check_whole, checkpoint_at, checkpoint_numbers, last_checkpoint, settle

STATE = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def save(folder: Path, *steps: int) -> Path:
    """Checkpoints of a run, as a trainer would leave them staged."""
    for step in steps:
        staged = folder / checkpoints.STAGED / f"checkpoint-{step}"
        staged.mkdir(parents=True)
        for name in STATE:
            (staged / name).write_bytes(f"{name} of step {step}".encode() * 50)
        settle(folder, step)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoints of one run at three steps."""
    return save(tmp_path / "rft-0-0123456789" / "checkpoints", 2, 4, 8)


def test_the_nearest_and_the_last_are_found(folder: Path) -> None:
    (folder / "checkpoint-x").mkdir()
    assert checkpoint_numbers(folder) == [2, 4, 8]
    assert checkpoint_at(folder, 5).name == "checkpoint-4"
    assert checkpoint_at(folder).name == "checkpoint-8"
    with pytest.raises(UserError, match="holds no checkpoint; train the source run first"):
        checkpoint_at(folder / "nowhere")


def test_a_checkpoint_that_is_no_model_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="checkpoint-8 is not a model folder"):
        build.load(checkpoint_at(folder))


def test_the_last_two_keep_their_optimiser_and_all_keep_their_weights(folder: Path) -> None:
    assert [(folder / f"checkpoint-{step}" / "optimizer.pt").exists() for step in (2, 4, 8)] == [False, True, True]
    for step in (2, 4, 8):
        check_whole(folder / f"checkpoint-{step}")


DAMAGE = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:7]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "flipped bit": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("name", [*STATE, checkpoints.SEAL])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_broken_file_is_named_and_the_checkpoint_before_it_is_used(folder: Path, name: str, kind: str) -> None:
    DAMAGE[kind](folder / "checkpoint-8" / name)
    if (name, kind) != ("optimizer.pt", "gone"):
        with pytest.raises(DamagedFile, match=name):
            checkpoint_at(folder)
        path, note = last_checkpoint(folder)
        assert note.startswith("checkpoint-8 was set aside and the one before it is used:") and name in note
        assert (folder / "broken-checkpoint-8").is_dir() and checkpoint_numbers(folder) == [2, 4]
    else:  # forgotten on purpose elsewhere, so no damage; there is nothing to resume from, though
        path, note = last_checkpoint(folder)
        assert not note
    assert path == folder / "checkpoint-4"


def test_where_every_checkpoint_is_broken_there_is_none(folder: Path) -> None:
    for step in (2, 4, 8):
        (folder / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"")
    path, note = last_checkpoint(folder)
    assert path is None and note.count("set aside") == 3
    assert last_checkpoint(folder / "nowhere") == (None, "")


def test_a_checkpoint_of_another_run_is_noticed(folder: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "rft-1-0123456789" / "checkpoints", 8)
    for path in (folder / "checkpoint-8").iterdir():
        path.unlink()
    for path in (other / "checkpoint-8").iterdir():
        (folder / "checkpoint-8" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DamagedFile, match="was saved by rft-1-0123456789 and not by rft-0-0123456789"):
        checkpoint_at(folder)


def test_what_a_killed_process_left_half_written_is_never_taken_for_a_checkpoint(folder: Path) -> None:
    half = folder / checkpoints.STAGED / "checkpoint-16"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert checkpoint_numbers(folder) == [2, 4, 8]
    assert last_checkpoint(folder) == (folder / "checkpoint-8", "")
    assert not half.exists()


def test_a_step_that_is_saved_again_replaces_the_earlier_one(folder: Path) -> None:
    save(folder, 8)
    assert last_checkpoint(folder) == (folder / "checkpoint-8", "")
