"""Own pictures: split by picture, kept under their digest, cut by number; and runs that name them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.errors import UserError
from helpers.files import DamagedFile
from helpers.study import own
from helpers.study.own import Own
from helpers.study.spec import RunSpec
from helpers.world import album, boards
from helpers.world.album import Album, cut, load_album, make_album, open_album
from helpers.world.pictures import Picture
from helpers.world.puzzles import PuzzleSpec, undo

SPEC = PuzzleSpec()


def flat(shade: int, size: tuple[int, int] = (90, 70)) -> Picture:
    """A picture of one grey, by which it is known again in every board that is cut from it."""
    return Picture(Image.new("RGB", size, (shade,) * 3), f"{shade:03}.png")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Album:
    """An album of eight greys, kept in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    forget()
    made = make_album([flat(10 * k) for k in range(8)])
    assert album.keep(made) == album.keep(made) == made.name
    yield made
    forget()


def forget() -> None:
    for cached in (load_album, boards.training_boards, boards.held_out_boards, boards.learned_boards):
        cached.cache_clear()


def test_a_quarter_is_held_out_whole_and_the_rest_is_learned_from() -> None:
    made = make_album([flat(10 * k) for k in range(8)])
    learned, held_out = ({p.name for p in part} for part in (made.training, made.held_out))
    assert (len(learned), len(held_out)) == (6, 2) and not learned & held_out
    assert len(make_album([flat(1), flat(2)]).held_out) == 1


def test_an_album_hangs_on_its_pictures_and_not_on_their_order() -> None:
    pictures = [flat(10 * k) for k in range(5)]
    assert make_album(pictures).name == make_album(pictures[::-1]).name
    assert make_album(pictures).name != make_album([*pictures[:4], flat(77)]).name


def test_another_name_makes_no_other_album() -> None:
    pictures = [flat(10 * k) for k in range(8)]
    renamed = [replace(picture, name=f"{8 - k}.png") for k, picture in enumerate(pictures)]
    assert make_album(pictures).name == make_album(renamed).name


def test_a_copy_under_another_name_is_never_held_out_from_itself() -> None:
    copies = [replace(flat(10 * k), name=f"{part}{k}") for k in range(3) for part in "ab"]
    made = make_album(copies)
    assert len(made.training) + len(made.held_out) == 3


@pytest.mark.parametrize("pictures", [[], [flat(1)], [flat(1), replace(flat(1), name="copy")]])
def test_one_picture_alone_is_refused_in_a_sentence(pictures: list[Picture]) -> None:
    with pytest.raises(UserError, match="two that differ"):
        make_album(pictures)


def test_what_is_kept_comes_back_pixel_for_pixel_and_a_change_is_noticed(kept: Album) -> None:
    read = load_album(kept.name)
    assert read == kept or [p.image.tobytes() for p in read.training] == [p.image.tobytes() for p in kept.training]
    assert [p.name for p in read.held_out] == [p.name for p in kept.held_out]
    path = next((album.ALBUMS / kept.name / "training").glob("*.png"))
    flat(255).image.save(path)
    load_album.cache_clear()
    with pytest.raises(DamagedFile, match="not those that were kept"):
        load_album(kept.name)


def test_pictures_that_are_gone_are_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run notebook 14"):
        load_album("0123456789", tmp_path)


def test_one_bad_file_does_not_stop_a_folder(tmp_path: Path) -> None:
    for shade in (10, 20, 30):
        flat(shade).image.save(tmp_path / f"{shade}.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"1 of 4 pictures were left out.*bad\.jpg"):
        made = open_album(tmp_path)
    assert len(made.training) + len(made.held_out) == 3


@pytest.mark.parametrize("size", [(64, 64), (63, 64), (96, 64)])
def test_a_cut_has_the_boards_shape_and_lies_within_the_picture(size: tuple[int, int]) -> None:
    across = np.tile(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (120, 1, 3))
    picture = Picture(Image.fromarray(across), "ramp")
    parts = [cut(picture, size, np.random.default_rng(k)) for k in range(20)]
    assert {part.shape for part in parts} == {(size[1], size[0], 3)}
    starts = [int(part[0, 0, 0]) for part in parts]
    assert len(set(starts)) > 10 and max(starts) < 255 * 0.7  # at another place each time, never past the edge


def shades(made: boards.Boards) -> set[int]:
    return {int(board[0, 0, 0]) for board in made.pixels}


def test_no_board_to_learn_from_shows_a_picture_that_is_held_out(kept: Album) -> None:
    learned = boards.training_boards(SPEC, 40, 0, kept.name)
    fresh = boards.learned_boards(SPEC, 40, kept.name)
    held_out = boards.held_out_boards(SPEC, 40, pictures=kept.name)
    own_shades = [{int(np.asarray(p.image)[0, 0, 0]) for p in part} for part in (kept.training, kept.held_out)]
    assert [shades(learned), shades(held_out)] == own_shades and shades(fresh) == shades(learned)


def test_a_board_hangs_on_its_number_and_seed_and_restores_to_a_part_of_its_picture(kept: Album) -> None:
    few, many = (boards.photo_boards(SPEC, range(n), 3, kept.training) for n in (4, 9))
    assert np.array_equal(few.pixels, many.pixels[:4]) and np.array_equal(few.placements, many.placements[:4])
    other = boards.photo_boards(SPEC, range(9), 4, kept.training)
    assert not np.array_equal(other.placements, many.placements)
    ramp = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3) % 251
    picture = Picture(Image.fromarray(ramp.astype(np.uint8)), "ramp")
    one = boards.photo_boards(SPEC, [5], 3, [picture])
    back = boards.puzzles.draw_boards(one.pixels, SPEC, np.array([undo(SPEC, one.placements[0])]))
    assert np.array_equal(back[0], cut(picture, (64, 64), np.random.default_rng((boards.seeds.CROPS, 3, 5))))


# ---- runs


def test_a_run_without_own_pictures_keeps_its_name_and_one_with_them_has_another() -> None:
    plain = RunSpec("sft-answer", 0, 10, 1e-3, 4)
    assert "pictures" not in plain.to_dict()
    named = replace(plain, pictures="0123456789")
    assert named.hash != plain.hash and RunSpec.from_json(named.to_json()) == named


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pictures": "holiday"}, "10 hex digits"),
        ({"arm": "sft-expert", "pictures": "0123456789"}, "no words for pictures"),
        ({"arm": "sft-stream", "source": "rft-0-a1932b79ef", "pictures": "0123456789"}, "another run's boards"),
    ],
)
def test_what_cannot_be_done_with_own_pictures_is_refused(changes: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        RunSpec(**{"arm": "sft-answer", "seed": 0, "steps": 10, "learning_rate": 1e-3, "batch_size": 4} | changes)


def test_a_run_of_ones_own_is_what_was_asked_for(kept: Album) -> None:
    spec = Own(grid="2x3", form="think", arm="rft", rate=1e-4, seed=3, reward_weights="1, 2 0.5", steps=7).spec(kept)
    assert (spec.rows, spec.cols, spec.size, spec.asked, spec.seed) == (2, 3, 96, "think", 3)
    assert (spec.reward_weights, spec.steps, spec.pictures) == ((1.0, 2.0, 0.5), 7, kept.name)
    assert (spec.batch_size, spec.beta) == own.usual("rft", "two-form-5")[1:]
    assert Own(steps=7).spec(kept, 4).steps == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"grid": "big"}, "GRID is 'big'"),
        ({"arm": "sft-rollout"}, "choose one of rft, sft-answer"),
        ({"arm": "nonsense"}, "there is no arm"),
        ({"base": "shipped"}, "can be asked for plain"),
        ({"base": "/nowhere"}, "neither one of shipped"),
        ({"reward_weights": "much"}, "write three numbers"),
        ({"reward_weights": "1 2"}, "three numbers"),
        ({"rate": 0.0}, "must both be above 0"),
    ],
)
def test_wrong_settings_are_told_in_a_sentence(wrong: dict[str, object], said: str, kept: Album) -> None:
    with pytest.raises(UserError, match=said):
        Own(**wrong).spec(kept)


def test_another_model_in_the_same_folder_is_another_run(kept: Album, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    names = set()
    for weights in (b"one", b"two"):
        (folder / "model.safetensors").write_bytes(weights)
        names.add(Own(base=str(folder)).spec(kept).name)
    assert len(names) == 2
