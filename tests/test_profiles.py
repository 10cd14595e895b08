"""Profiles and run specs: identity, validation, the table of runs and the checkpoint schedule."""

import hashlib
import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import UserError
from helpers.model.processor import encode_target, load_processor
from helpers.study.arms import ARM_DESCRIPTIONS, ARMS, REGISTRY
from helpers.study.profiles import PROFILES, checkpoint_steps, get_profile, specs
from helpers.study.spec import LARGEST_WHOLE, RunSpec
from helpers.train.recipes import get_recipe
from helpers.world import answers
from helpers.world.forms import ASKED

GOLDEN_JSON = (
    '{"arm":"rft","base":"shipped","batch_size":16,"beta":0.0,"cols":2,"extra":[],"freeze_vision":false,'
    '"group_size":8,"learning_rate":0.0001,"lora_rank":0,"max_completion_length":32,'
    '"reward_weights":[1.0,1.0,1.0],"rows":2,"seed":0,"size":64,"source":"","steps":1500,"temperature":1.0,'
    '"weight_decay":0.0}'
)
SOURCE = "rft-0-a1932b79ef"


def rft(**changes: object) -> RunSpec:
    """The spec behind the golden hash, with changes."""
    values = {"arm": "rft", "seed": 0, "steps": 1500, "learning_rate": 1e-4, "batch_size": 16}
    return RunSpec(**(values | changes))


def source_of(arm: str) -> str:
    """A name that the source of an arm's run may have; empty where it has none."""
    source = REGISTRY[arm].source
    return f"{source}-0-a1932b79ef" if source else ""


# --- identity ---

wholes = st.integers(1, 5000)
reals = st.floats(0, 1e6, allow_nan=False)
positives = st.floats(1e-9, 1e3)
extra_values = st.one_of(
    st.integers(-LARGEST_WHOLE, LARGEST_WHOLE),
    st.floats(-(2.0**53), 2.0**53),
    st.text(max_size=5),
)
extras = st.dictionaries(st.text(min_size=1, max_size=5), extra_values, max_size=3)


@st.composite
def run_specs(draw: st.DrawFn) -> RunSpec:
    """Any spec that may be run."""
    arm = draw(st.sampled_from([arm for arm in ARMS if arm != "base"]))
    rows, cols = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    entry = REGISTRY[arm]
    return RunSpec(
        arm=arm,
        seed=draw(st.integers(0, 2**32)),
        steps=draw(wholes),
        learning_rate=draw(positives),
        batch_size=draw(wholes),
        group_size=draw(st.integers(2, 64)),
        rows=rows,
        cols=cols,
        size=draw(st.integers(4, 512)),
        beta=draw({"none": st.just(0.0), "needed": positives, "may be": reals}[entry.kl]),
        weight_decay=draw(reals),
        lora_rank=draw(st.integers(0, 64)) if entry.lora else 0,
        freeze_vision=draw(st.booleans()),
        reward_weights=(draw(positives), draw(reals), draw(reals)),
        temperature=draw(positives),
        base=draw(st.text(min_size=1, max_size=8)),
        source=source_of(arm),
        asked=draw(st.sampled_from([asked for asked in ASKED if (entry.written, asked) != ("think", "direct")])),
        extra=tuple(draw(extras).items()),
    )


@given(run_specs())
def test_json_round_trip_keeps_spec_and_hash(spec: RunSpec) -> None:
    again = RunSpec.from_json(spec.to_json())
    assert again == spec
    assert again.hash == spec.hash
    assert again.to_json() == spec.to_json()


@given(run_specs(), st.randoms(use_true_random=False))
def test_key_order_and_layout_of_the_json_do_not_matter(spec: RunSpec, random: object) -> None:
    items = list(json.loads(spec.to_json()).items())
    random.shuffle(items)
    assert RunSpec.from_json(json.dumps(dict(items), indent=3)).hash == spec.hash


@given(run_specs(), run_specs())
def test_equal_specs_have_equal_hashes_and_others_do_not(one: RunSpec, other: RunSpec) -> None:
    assert (one == other) == (one.to_json() == other.to_json()) == (one.hash == other.hash)


def test_a_plain_prompt_leaves_no_trace_in_the_json_and_another_form_does() -> None:
    assert "asked" not in rft().to_json() and rft(asked="plain").hash == rft().hash
    assert json.loads(rft(asked="direct").to_json())["asked"] == "direct" and rft(asked="direct").hash != rft().hash


@pytest.mark.parametrize(
    ("arm", "asked", "written"),
    [
        ("rft", "plain", "think"), ("rft", "direct", "direct"), ("rft", "sentences", "think"),
        ("sft-answer", "plain", "direct"), ("sft-answer", "think", "direct"), ("sft-expert", "plain", "sentences"),
        ("sft-voice", "plain", "think"), ("sft-rollout", "direct", "direct"), ("iterative-sft", "think", "think"),
    ],
)  # fmt: skip
def test_what_is_written_follows_from_the_arm_and_what_is_asked(arm: str, asked: str, written: str) -> None:
    assert RunSpec(arm, 0, 1, 1e-3, 2, asked=asked, source=source_of(arm)).written == written
    if arm == "sft-answer":
        assert RunSpec(arm, 0, 1, 1e-3, 2, asked=asked, extra=(("filler", "empty"),)).written == "think"


def test_golden_hash() -> None:
    spec = rft()
    assert spec.to_json() == GOLDEN_JSON
    assert spec.hash == hashlib.sha256(GOLDEN_JSON.encode()).hexdigest()[:10] == "a1932b79ef"
    assert spec.name == "rft-0-a1932b79ef"


def test_numbers_are_brought_to_one_form() -> None:
    assert rft(learning_rate=0.0001).hash == rft(learning_rate=np.float64("1e-4")).hash == rft().hash
    assert rft(steps=np.int64(1500), beta=0, weight_decay=-0.0, reward_weights=[1, 1, 1]).hash == rft().hash
    as_float, as_int = rft(extra=(("every", 50.0), ("a", 1))), rft(extra=[["a", 1], ["every", 50]])
    assert as_float == as_int
    assert as_float.hash == as_int.hash
    assert as_float.settings == {"a": 1, "every": 50}


def test_every_setting_reaches_the_hash() -> None:
    changes = {
        "arm": "reinforce-1-0", "seed": 1, "steps": 2, "learning_rate": 1e-5, "batch_size": 2,
        "group_size": 4, "rows": 3, "cols": 3, "size": 96, "beta": 0.1, "weight_decay": 0.1, "lora_rank": 8,
        "freeze_vision": True, "reward_weights": (1, 0, 1), "temperature": 0.7, "max_completion_length": 12,
        "base": "other", "source": SOURCE, "extra": (("a", 1),),
    }  # fmt: skip
    assert set(changes) == set(json.loads(GOLDEN_JSON))
    hashes = {rft(**{name: value}).hash for name, value in changes.items()} | {rft().hash}
    assert len(hashes) == len(changes) + 1


def test_a_spec_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        rft().steps = 3  # type: ignore[misc]


# --- refusals ---


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arm": "sft"}, "sft-answer"),
        ({"arm": None}, "choose one of base, rft"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.0}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"steps": 0}, "steps and learning_rate must both be above 0"),
        ({"steps": 2**53 + 1}, "steps is"),
        ({"learning_rate": 0}, "learning_rate must both be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"learning_rate": np.float32("inf")}, "learning_rate is inf"),
        ({"learning_rate": 10**400}, "learning_rate is 1000"),
        ({"learning_rate": -1e-4}, "not negative"),
        ({"learning_rate": "1e-4"}, "learning_rate must be a number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"group_size": 1}, "every advantage is 0"),
        ({"rows": 1, "cols": 1}, "one tile"),
        ({"rows": 9, "size": 8}, "size 8 is too small"),
        ({"temperature": 0}, "temperature is 0"),
        ({"reward_weights": (1, 1)}, "three numbers"),
        ({"reward_weights": (0, 0, 0)}, "all 0"),
        ({"reward_weights": (1, 1, float("nan"))}, "reward_weights is nan"),
        ({"max_completion_length": 11}, "max_completion_length is 11"),
        ({"max_completion_length": -1}, "max_completion_length is -1"),
        ({"freeze_vision": 1}, "True or False"),
        ({"base": ""}, "base must name"),
        ({"source": "rft"}, "source must be a run's name"),
        ({"source": "../../etc-0-a1932b79ef"}, "source must be a run's name"),
        ({"extra": (("a", 1), ("a", 2))}, "twice"),
        ({"extra": (("a", None),)}, "must be a number or a text"),
        ({"extra": (("a", float("nan")),)}, "'a' is nan"),
        ({"extra": (("a", np.float32("inf")),)}, "'a' is inf"),
        ({"extra": (("a", -(10**400)),)}, "'a' is -1000"),
        ({"extra": ((1, 2),)}, "non-empty text"),
        ({"extra": "ab"}, "pairs"),
        ({"arm": "base"}, "set steps to 0"),
        ({"arm": "rft-no-kl", "beta": 0.1}, "has no KL term"),
        ({"arm": "sft-kl"}, "beta is 0"),
        ({"arm": "sft-kl"}, "beta is 0"),
        ({"arm": "sft-rollout"}, "give that run's name as source"),
        ({"arm": "distill-degraded", "beta": 1, "source": SOURCE}, "learns from a run of sft-answer, not from rft-0-"),
        ({"arm": "sft-dream"}, "beta is 0"),
        ({"arm": "rft-entropy", "beta": 0.1}, "has no KL term"),
        ({"arm": "rft-random", "beta": 0.1}, "has no KL term"),
    ],
)
def test_impossible_specs_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as caught:
        rft(**changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        (GOLDEN_JSON[:-9], "not valid JSON"),
        ("[1]", "must be a JSON object"),
        (GOLDEN_JSON.replace('"beta"', '"betta"'), "no setting betta"),
        (GOLDEN_JSON.replace('"seed":0,', ""), "lacks seed"),
        (GOLDEN_JSON.replace('"seed":0', '"seed":null'), "seed must be a whole number"),
        (GOLDEN_JSON.replace("0.0001", "NaN"), "learning_rate is nan"),
    ],
)
def test_bad_json_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        RunSpec.from_json(text)


def test_json_may_leave_out_defaults() -> None:
    short = '{"arm": "rft", "seed": 0, "steps": 1500, "learning_rate": 1e-4, "batch_size": 16}'
    assert RunSpec.from_json(short) == rft()


# --- arms and profiles ---


def test_arms_are_in_design_order_and_described_in_one_line() -> None:
    assert ARMS == (
        "base", "rft", "sft-answer", "sft-expert", "sft-rollout", "sft-self", "self-sft", "iterative-sft",
        "reinforce-1-0", "rft-no-kl", "sft-kl", "sft-replay", "distill", "sft-stream", "sft-voice", "sft-oracle",
        "rft-stale", "distill-degraded", "sft-dream", "sft-dft", "rft-entropy", "rft-random",
    )  # fmt: skip
    assert all(text and "\n" not in text for text in ARM_DESCRIPTIONS.values())


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_makes_valid_specs_for_each_of_its_arms_and_seeds(name: str) -> None:
    profile = get_profile(name)
    made = specs(profile)
    assert profile.name == name
    arms = list(ARMS)[: ARMS.index("rft-stale") + 1]  # the later ones are run on several bases alone
    assert list(profile.arms) == arms
    assert len(made) == 1 + len(profile.seeds) * (len(arms) - 1)
    assert len({spec.name for spec in made}) == len(made)
    assert [spec.arm for spec in made if spec.seed == profile.seeds[0]] == arms


@pytest.mark.parametrize("name", PROFILES)
def test_sources_are_runs_of_the_same_seed_planned_earlier(name: str) -> None:
    made = specs(get_profile(name))
    names = [spec.name for spec in made]
    fed = [(index, spec) for index, spec in enumerate(made) if spec.source]
    assert {spec.arm for _, spec in fed} == {name for name in get_profile(name).arms if REGISTRY[name].source}
    for index, spec in fed:
        source = made[names.index(spec.source)]
        assert names.index(spec.source) < index
        assert (source.arm, source.seed) == (REGISTRY[spec.arm].source, spec.seed)


@pytest.mark.parametrize("name", PROFILES)
def test_a_source_step_is_a_step_at_which_the_source_is_looked_at(name: str) -> None:
    profile = get_profile(name)
    step = dict(profile.budget("sft-self").extra)["source_step"]
    assert step in checkpoint_steps(profile.budget("rft").steps)


def test_profiles_have_the_agreed_sizes() -> None:
    smoke, cpu, gpu = (get_profile(name) for name in ("smoke", "cpu", "gpu"))
    assert max(line.steps for line in smoke.budgets) <= 4
    assert smoke.seeds == (0,)
    assert len(cpu.seeds) >= 3
    assert gpu.model.startswith("Qwen/Qwen2.5-VL")
    assert gpu.size % (28 * gpu.cols) == gpu.size % (28 * gpu.rows) == 0


def test_precision_is_part_of_the_hash_only_where_it_is_not_float32() -> None:
    cpu = get_profile("cpu")
    half = replace(cpu, dtype="bfloat16")
    assert specs(cpu, "rft")[0].settings == {}
    assert specs(half, "rft")[0].settings == {"dtype": "bfloat16"}


def test_specs_go_seed_by_seed_in_design_order_whatever_the_request() -> None:
    cpu = replace(get_profile("cpu"), seeds=(5, 7))
    made = [(spec.arm, spec.seed) for spec in specs(cpu, ["sft-answer", "rft", "base", "rft"])]
    assert made == [("base", 5), ("rft", 5), ("sft-answer", 5), ("rft", 7), ("sft-answer", 7)]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="smoke, cpu, gpu"):
        get_profile("tpu")
    with pytest.raises(UserError, match="sft-rollout"):
        specs(get_profile("cpu"), ["rollout"])
    with pytest.raises(UserError, match="no budget for arm rft"):
        specs(replace(get_profile("cpu"), budgets=()), ["rft"])


# --- schedule ---


def test_checkpoint_steps_by_hand() -> None:
    assert checkpoint_steps(0) == (0,)
    assert checkpoint_steps(1) == (0, 1)
    assert checkpoint_steps(16) == (0, 1, 2, 3, 4, 6, 8, 11, 16)
    assert checkpoint_steps(100) == (0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 100)
    assert checkpoint_steps(20, per_octave=1) == (0, 1, 2, 4, 8, 16, 20)


@given(st.integers(1, 10**6), st.integers(1, 6))
def test_checkpoint_steps_start_at_0_end_at_total_and_leave_no_wide_gap(total: int, per_octave: int) -> None:
    steps = checkpoint_steps(total, per_octave)
    assert steps[0] == 0
    assert steps[-1] == total
    assert list(steps) == sorted(set(steps))
    ratio = 2 ** (1 / per_octave)
    # Rounding moves each of two neighbours by at most half a step.
    assert all(late <= ratio * (early + 0.5) + 0.5 for early, late in zip(steps[1:], steps[2:], strict=False))


@pytest.mark.parametrize(("total", "per_octave"), [(-1, 2), (2.5, 2), (10, 0), (True, 2)])
def test_impossible_schedules_are_refused(total: object, per_octave: int) -> None:
    with pytest.raises(UserError):
        checkpoint_steps(total, per_octave)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PROFILES)
def test_what_a_profile_plans_can_be_run(name: str) -> None:
    """Every arm with a line: its settings fit together, it has a recipe, and its answers fit into a completion."""
    profile = get_profile(name)
    planned = [line.arm for line in profile.budgets]
    assert set(profile.study_arms) - {"base"} <= set(planned)
    for spec in specs(profile, planned):
        assert get_recipe(spec.arm) and spec.max_completion_length >= answers.shortest(spec.rows * spec.cols)
    assert {"rft", "sft-answer", "sft-rollout"} <= set(profile.study_arms)


def test_what_cannot_be_run_is_refused_when_it_is_planned() -> None:
    with pytest.raises(UserError, match="sft-voice writes behind a model's own think: ask for a think, or ask plainly"):
        RunSpec("sft-voice", 0, 1, 1e-3, 2, asked="direct")
    with pytest.raises(UserError, match="sft-expert writes no bare answers that a filler could stand before"):
        RunSpec("sft-expert", 0, 1, 1e-3, 2, extra=(("filler", "empty"),))
    with pytest.raises(UserError, match="asked must be one of plain, think, direct, sentences, not 'loudly'"):
        RunSpec("rft", 0, 1, 1e-3, 2, asked="loudly")
    with pytest.raises(UserError, match="max_completion_length is 32, but an answer for 4 x 4 tiles takes 43 tokens"):
        RunSpec("rft", 0, 1, 1e-3, 2, rows=4, cols=4, max_completion_length=32)
    short = replace(get_profile("gpu"), budgets=())
    with pytest.raises(UserError, match="profile gpu has no budget for arm sft-expert"):
        specs(short, ["sft-expert"])


@given(st.integers(1, 5), st.integers(2, 5))
def test_the_room_for_a_completion_comes_from_the_grid_and_a_right_answer_fits(rows: int, cols: int) -> None:
    tiles, tokenizer = rows * cols, load_processor().tokenizer
    spec = RunSpec("rft", 0, 1, 1e-3, 2, rows=rows, cols=cols)
    assert spec.max_completion_length == answers.room(tiles) < answers.room(tiles, outside=True)
    numbers = " ".join(map(str, range(tiles, 0, -1)))
    text = f"<think></think><answer>{numbers}</answer>"
    assert len(encode_target(tokenizer, text)) - 1 == answers.shortest(tiles) <= spec.max_completion_length
