"""Checkpoints: what stands in its place is whole, what is not is set aside, and there is one before it."""

from pathlib import Path

import pytest

from helpers.errors import UserError
from helpers.files import DamagedFile
from helpers.model import build
from helpers.study import checkpoints
from helpers.study.checkpoints import check_whole, checkpoint_at, checkpoint_numbers, last_checkpoint, settle

STATE = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def save(folder: Path, *steps: int, kept: set[int] | None = None) -> Path:
    """Checkpoints of a run, as a trainer would leave them staged, settled one after the other."""
    for step in steps:
        staged = folder / checkpoints.STAGED / f"checkpoint-{step}"
        staged.mkdir(parents=True)
        for name in STATE:
            (staged / name).write_bytes(f"{name} of step {step}".encode() * 50)
        settle(folder, step, kept)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoints of one run at three steps."""
    return save(tmp_path / "rft-0-0123456789" / "checkpoints", 2, 4, 8)


def test_the_one_asked_for_and_the_last_are_found_and_no_other_stands_in(folder: Path) -> None:
    (folder / "checkpoint-x").mkdir()
    assert checkpoint_numbers(folder) == [2, 4, 8]
    assert checkpoint_at(folder, 4).name == "checkpoint-4"
    assert checkpoint_at(folder).name == "checkpoint-8"
    with pytest.raises(UserError, match="holds no checkpoint of step 5; delete the run's folder"):
        checkpoint_at(folder, 5)
    (folder.parent / "spec.json").write_text('{"steps": 16}')  # as of a run that was not finished, or lost its end
    with pytest.raises(UserError, match="holds no checkpoint of step 16"):
        checkpoint_at(folder)
    with pytest.raises(UserError, match="holds no checkpoint; train the source run first"):
        checkpoint_at(folder / "nowhere")


def test_a_checkpoint_that_is_no_model_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="checkpoint-8 is not a model folder"):
        build.load(checkpoint_at(folder))


def test_the_last_two_keep_their_optimiser_and_all_keep_their_weights(folder: Path) -> None:
    assert [(folder / f"checkpoint-{step}" / "optimizer.pt").exists() for step in (2, 4, 8)] == [False, True, True]
    for step in (2, 4, 8):
        check_whole(folder / f"checkpoint-{step}")


def test_where_only_some_are_kept_the_others_go_once_two_newer_ones_are_there(tmp_path: Path) -> None:
    folder = save(tmp_path / "rft-0-0123456789" / "checkpoints", 2, 4, 8, 16, 32, kept={4})
    assert checkpoint_numbers(folder) == [4, 16, 32]
    assert [(folder / f"checkpoint-{step}" / "optimizer.pt").exists() for step in (4, 16, 32)] == [False, True, True]
    check_whole(folder / "checkpoint-4")


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
        assert note.startswith("1 broken and set aside, checkpoint-4 is used instead:") and name in note
        assert (folder / "broken-checkpoint-8").is_dir() and checkpoint_numbers(folder) == [2, 4]
    else:  # forgotten on purpose elsewhere, so no damage; there is nothing to resume from, though
        path, note = last_checkpoint(folder)
        assert not note
    assert path == folder / "checkpoint-4"


def test_where_every_checkpoint_is_broken_there_is_none(folder: Path) -> None:
    for step in (2, 4, 8):
        (folder / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"")
    path, note = last_checkpoint(folder)
    assert path is None and note.startswith("3 broken and set aside, the run begins anew:")
    assert not checkpoint_numbers(folder)
    assert last_checkpoint(folder / "nowhere") == (None, "")


def test_a_checkpoint_of_another_run_is_noticed(folder: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "rft-1-0123456789" / "checkpoints", 8)
    for path in (folder / "checkpoint-8").iterdir():
        path.unlink()
    for path in (other / "checkpoint-8").iterdir():
        (folder / "checkpoint-8" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DamagedFile, match="was saved by rft-1-0123456789 and not by rft-0-0123456789"):
        checkpoint_at(folder)


def test_a_checkpoint_of_another_step_and_a_file_that_was_not_saved_with_it_are_noticed(folder: Path) -> None:
    for path in (folder / "checkpoint-4").iterdir():
        (folder / "checkpoint-8" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DamagedFile, match="checkpoint-8 is the checkpoint of step 4"):
        checkpoint_at(folder)
    (folder / "checkpoint-4" / "adapter_config.json").write_text("{}")
    with pytest.raises(DamagedFile, match="adapter_config.json was not saved with it"):
        checkpoint_at(folder, 4)


def test_what_lies_behind_the_one_that_is_used_is_made_again_and_two_states_stay(folder: Path) -> None:
    save(folder, 16, 32)
    for step in (16, 32):
        (folder / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"")
    assert last_checkpoint(folder)[0] is None  # the states of the others were forgotten
    save(folder, 2, 4)
    assert [(folder / f"checkpoint-{step}" / "optimizer.pt").exists() for step in (2, 4)] == [True, True]


def test_steps_of_a_run_that_draws_for_several_at_a_time_are_those_where_it_draws_anew() -> None:
    assert checkpoints.evaluation_steps(576, 2, 8) == (0, 8, 16, 32, 64, 96, 128, 184, 256, 368, 512, 576)
    assert checkpoints.evaluation_steps(9, 1, 4) == (0, 4, 8, 9)
    assert checkpoints.evaluation_steps(9, 1, 1) == checkpoints.evaluation_steps(9, 1)


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
