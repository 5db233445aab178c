"""Foreign preference files: each reader must let a segment that is known to be better come out as preferred."""

from contextlib import suppress

import numpy as np
import pytest
from pickled import array_pickle, evil_pickle

from robopref.arrays import InputError
from robopref.data.comparisons import Comparisons, check_disjoint
from robopref.data.foreign import pairs_of_list, read_lire, read_npz, read_triples
from robopref.data.restricted import read_array


def segments(level, count=6, steps=5, seed=0):
    """Observations whose first number is the level: higher is better."""
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(count, steps, 3))
    observation[..., 0] = level
    return observation, rng.normal(size=(count, steps, 2))


def wins_of_better(made, better):
    """Mean P(the better side preferred); `better` (N,) is 0 where the first side is better, 1 where the second."""
    return np.mean(np.where(better == 0, made.prob_first, 1 - made.prob_first))


def test_ipl_labels_name_the_second_side(tmp_path):
    good, act = segments(9.0)
    bad, _ = segments(-9.0, seed=1)
    swap = np.array([0, 1, 0, 1, 0, 1])[:, None, None]
    one, two = np.where(swap == 0, good, bad), np.where(swap == 0, bad, good)
    label = swap.ravel().astype(float)  # 1 = the second is preferred
    np.savez(tmp_path / "a.npz", obs_1=one, obs_2=two, action_1=act, action_2=act, label=label)
    made = read_npz(tmp_path / "a.npz")
    level = made.first_observation[:, 0, 0] - made.second_observation[:, 0, 0]
    assert (np.sign(level) == np.sign(made.prob_first - 0.5)).all()


def test_ipl_ties_are_halves_and_other_codes_are_refused(tmp_path):
    good, act = segments(1.0, count=2)
    arrays = {"obs_1": good, "obs_2": good, "action_1": act, "action_2": act}
    np.savez(tmp_path / "a.npz", **arrays, label=[0.5, 1.0])
    assert read_npz(tmp_path / "a.npz").prob_first.tolist() == [0.5, 0.0]
    np.savez(tmp_path / "c.npz", **arrays, label=[[0.25], [1.0]])  # shares of several raters
    assert read_npz(tmp_path / "c.npz").prob_first.tolist() == [0.75, 0.0]
    np.savez(tmp_path / "b.npz", **arrays, label=[2.0, 1.0])
    with pytest.raises(InputError, match="labels"):
        read_npz(tmp_path / "b.npz")


def test_cpl_prefers_the_segment_with_the_higher_score(tmp_path):
    good, act = segments(3.0, count=2)
    bad, _ = segments(-3.0, count=2, seed=1)
    tie, _ = segments(0.0, count=2, seed=2)
    # Pair i is segments i and i + N / 2.
    obs = np.concatenate([good[:1], bad[:1], tie[:1], bad[1:], good[1:], tie[1:]])
    np.savez(
        tmp_path / "a.npz", obs=obs, action=np.concatenate([act] * 3), reward=obs[..., 0], rl_sum=obs[..., 0].sum(1)
    )
    made = read_npz(tmp_path / "a.npz")
    assert made.prob_first.tolist() == [1.0, 0.0, 0.5]
    assert made.first_observation[0, 0, 0] > made.second_observation[0, 0, 0]
    with pytest.raises(InputError, match="rl_dir"):
        read_npz(tmp_path / "a.npz", score="rl_dir")


@pytest.mark.parametrize("names", [
    ("indices_num4_q5", "indices_2_num4_q5", "label_human"),
    ("indices_1_can.pkl", "indices_2_can.pkl", "human_label_can.pkl"),
])  # fmt: skip
def test_triples_keep_their_sides_and_codes(tmp_path, names):
    data = np.arange(40, dtype=float)[:, None].repeat(3, axis=1)  # later rows are better
    starts = (np.array([30, 0, 10, 20]), np.array([0, 30, 20, 10]))
    for name, array in zip(names, (*starts, np.array([0, 1, 1, -1])), strict=True):
        (tmp_path / name).write_bytes(array_pickle(array))
    made = read_triples(tmp_path, data, data[:, :2], length=5)
    level = made.first_observation[:, 0, 0] - made.second_observation[:, 0, 0]
    assert made.prob_first.tolist() == [1.0, 0.0, 0.0, 0.5]
    assert (np.sign(level[:3]) == np.sign(made.prob_first[:3] - 0.5)).all()
    assert made.first_observation[0, :, 0].tolist() == [30, 31, 32, 33, 34]


def test_triples_with_two_columns_and_a_length_in_the_name(tmp_path):
    data = np.arange(40, dtype=float)[:, None].repeat(3, axis=1)
    made = {
        "indices_num2_q7": np.array([20, 1]),
        "indices_2_num2_q7": np.array([1, 20]),
        "label": np.array([[0.9, 0.1], [0.0, 1.0]]),
    }
    for name, array in made.items():
        (tmp_path / name).write_bytes(array_pickle(array))
    found = read_triples(tmp_path, data, data)
    assert found.prob_first.tolist() == [0.9, 0.0] and found.first_action.shape == (2, 7, 3)
    with pytest.raises(InputError, match="beyond the data"):
        read_triples(tmp_path, data[:20], data[:20])


def test_lire_lines_and_lists(tmp_path):
    (tmp_path / "a.txt").write_text("4 7 1\n7 4 3\n2 3 2\n")
    index, prob = read_lire(tmp_path / "a.txt")
    assert index.tolist() == [[4, 7], [7, 4], [2, 3]] and prob.tolist() == [1.0, 0.0, 0.5]
    (tmp_path / "b.txt").write_text("[5]\n[1, 2]\n[9]\n")  # worst first
    index, prob = read_lire(tmp_path / "b.txt")
    said = {(int(i), int(j)): p for (i, j), p in zip(index, prob, strict=True)}
    assert said == {(5, 1): 0.0, (5, 2): 0.0, (5, 9): 0.0, (1, 2): 0.5, (1, 9): 0.0, (2, 9): 0.0}
    for bad in ("1 2 4", "1 2", "[1, 'a']", "[1", "x y 1"):
        (tmp_path / "c.txt").write_text(bad + "\n")
        with pytest.raises(InputError, match=r"c\.txt:1"):
            read_lire(tmp_path / "c.txt")


def test_a_list_implies_every_pair_once():
    index, prob = pairs_of_list([[0], [1, 2], [3]])
    assert len(index) == 6 and (prob == 0.5).sum() == 1
    assert pairs_of_list([[4]])[0].shape == (0, 2)


def test_a_pickle_can_hold_arrays_and_nothing_else(tmp_path):
    for protocol in range(2, 6):
        (tmp_path / "a").write_bytes(array_pickle(np.arange(5.0), protocol))
        np.testing.assert_array_equal(read_array(tmp_path / "a"), np.arange(5.0))
    marker = tmp_path / "ran"
    (tmp_path / "b").write_bytes(evil_pickle(marker))
    with pytest.raises(InputError, match="more than arrays"):
        read_array(tmp_path / "b")
    assert not marker.exists()
    (tmp_path / "c").write_bytes(array_pickle(np.array(["text"])))
    with pytest.raises(InputError, match="wanted numbers"):
        read_array(tmp_path / "c")
    (tmp_path / "d").write_bytes(b"\x80\x04no pickle")
    with pytest.raises(InputError, match="damaged"):
        read_array(tmp_path / "d")
    with pytest.raises(InputError, match="no such file"):
        read_array(tmp_path / "none")


def test_no_damage_to_a_pickle_escapes_as_anything_but_a_clear_error(tmp_path):
    rng = np.random.default_rng(0)
    for protocol in (2, 4, 5):
        whole = array_pickle(np.arange(12).reshape(3, 4), protocol)
        for _ in range(300):
            torn = bytearray(whole)
            for at in rng.integers(0, len(torn), rng.integers(1, 4)):
                torn[at] = int(rng.integers(256))
            (tmp_path / "a").write_bytes(bytes(torn[: rng.integers(1, len(torn) + 1)]))
            with suppress(InputError):
                read_array(tmp_path / "a")


def comparisons(count=4, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda width: rng.normal(size=(count, 6, width)).astype(np.float32)  # noqa: E731
    return Comparisons(draw(3), draw(2), draw(3), draw(2), rng.integers(0, 2, count).astype(float))


def test_an_evaluation_pair_that_was_trained_on_is_an_error_in_either_order():
    train, fresh = comparisons(seed=0), comparisons(seed=1)
    check_disjoint(train, fresh)
    swapped = Comparisons(
        train.second_observation, train.second_action, train.first_observation, train.first_action, 1 - train.prob_first
    )
    with pytest.raises(InputError, match="4 of 4 evaluation pairs"):
        check_disjoint(train, swapped)


def test_segments_that_share_a_frame_are_of_one_demonstration():
    made = comparisons(count=3)
    made.second_observation[0, 3:] = made.first_observation[1, :3]  # overlap in time
    demonstration = made.demonstrations()
    assert demonstration[1, 0] == demonstration[0, 1] and len(np.unique(demonstration)) == 5
    assert made.components().tolist() == [0, 0, 1]


@pytest.mark.parametrize("change", ["nan", "label", "steps"])
def test_bad_arrays_are_refused(change):
    made = comparisons()
    arrays = [made.first_observation, made.first_action, made.second_observation, made.second_action, made.prob_first]
    if change == "nan":
        arrays[0] = np.full_like(arrays[0], np.nan)
    if change == "label":
        arrays[4] = arrays[4] + 1
    if change == "steps":
        arrays[1] = arrays[1][:, :4]
    with pytest.raises(InputError, match="Comparisons"):
        Comparisons(*arrays)


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", something=np.zeros(3))
    with pytest.raises(InputError, match="wanted obs_1"):
        read_npz(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="readable npz"):
        read_npz(tmp_path / "b.npz")
    with pytest.raises(InputError, match="no such file"):
        read_npz(tmp_path / "c.npz")
    with pytest.raises(InputError, match="one of each"):
        read_triples(tmp_path, np.zeros((3, 1)), np.zeros((3, 1)))
