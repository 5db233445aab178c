"""What policies see: chunks with pictures, augmentation that scores never meet, and preferences about what only a camera shows."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import chunk_table
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.learners.clone import clone, fit_normalizer
from robopref.losses.pairwise import sigmoid
from robopref.networks.augment import augmented, random_colour, random_shift
from robopref.networks.eyes import Eyes
from robopref.networks.spatial_softmax import SpatialSoftmax
from robopref.pictures import Frames, PictureSpec, joined
from robopref.policies.diffusion import Diffusion
from robopref.policies.flow import Flow
from robopref.policies.realigned import Realigned
from robopref.types import Chunks, Dims, Observation, concatenate

SIZE = 16
EYES = {"cameras": ["top"], "size": SIZE, "width": 16, "state": [], "shift": 2, "colour": 0.1}
HEADS = {
    "diffusion": lambda **eyes: Diffusion(
        Dims(2, 1), 2, 2, eyes={**EYES, **eyes}, width=32, depth=1, diffusion_steps=10
    ),
    "flow": lambda **eyes: Flow(Dims(2, 1), 2, 2, eyes={**EYES, **eyes}, width=32, depth=1),
}


def drawn(generator, *shape):
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def coloured(action, red, seed=0, steps=8):
    """An episode whose state says nothing and whose pictures are red or blue."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 60, (steps, SIZE, SIZE, 3)).astype(np.uint8)
    pictures[..., 0 if red else 2] += 150
    one = np.ones(steps, np.float32)
    acted = np.clip(action + 0.1 * rng.normal(size=(steps, 1)), -1, 1).astype(np.float32)
    return Trajectory(np.zeros((steps, 2), np.float32), acted, one, one > 2, seed=seed, images={"top": pictures})


def episodes(count=6):
    return [coloured(sign, red, 10 * i + k) for i in range(count) for k, (sign, red) in enumerate(SIDES)]


SIDES = ((0.7, True), (-0.7, True), (0.7, False), (-0.7, False))


@pytest.fixture(params=sorted(HEADS))
def head(request):
    torch.manual_seed(0)
    return HEADS[request.param]


def test_spatial_softmax_says_where_a_peak_is():
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 4, 2], maps[0, 1, 0, 8] = 50.0, 50.0
    assert_close(SpatialSoftmax()(maps)[0], torch.tensor([-0.5, 1.0, 1.0, -1.0]), atol=1e-5, rtol=0)


def test_a_shift_moves_whole_pixels_and_a_history_together():
    generator = torch.Generator().manual_seed(0)
    pictures = drawn(generator, 40, 2, 9, 11, 3)
    moved = random_shift(pictures, 3, generator)
    wide = torch.nn.functional.pad(
        pictures.double().permute(0, 1, 4, 2, 3).flatten(0, 1), (3, 3, 3, 3), mode="replicate"
    )
    wide = wide.unflatten(0, (40, 2)).permute(0, 1, 3, 4, 2).to(torch.uint8)
    places = set()
    for row in range(40):
        fits = [
            (y, x) for y in range(7) for x in range(7) if torch.equal(moved[row], wide[row, :, y : y + 9, x : x + 11])
        ]
        assert len(fits) == 1, "one and the same move for both pictures of a history"
        places |= set(fits)
    assert len(places) > 20 and {0, 6} <= {p for place in places for p in place}


def test_a_change_of_colour_keeps_to_its_share():
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((200, 1, 2, 2, 3), 120, dtype=torch.uint8)
    changed = random_colour(grey, 0.1, generator).double()
    assert changed.std(dim=0).min() > 3
    assert changed.min() >= (120 - 7.5 * 0.1 - 25.5 - 1) * 0.9 - 1 and changed.max() <= (120 + 25.5 + 1) * 1.1 + 1
    assert torch.equal(random_colour(grey, 0.0, generator), grey)


def test_a_policy_without_eyes_draws_nothing_for_augmentation():
    generator = torch.Generator().manual_seed(0)
    before, chunks = (
        generator.get_state(),
        Chunks(Observation(torch.zeros(2, 1, 3)), torch.zeros(2, 4, 1), torch.ones(2, 4, 1)),
    )
    assert augmented(chunks, PictureSpec(), generator) is chunks
    assert torch.equal(generator.get_state(), before)


def test_a_table_gives_the_pictures_of_every_chunks_history():
    some = [coloured(0.5, True, 1, 7), coloured(0.5, False, 2, 5)]
    policy = Diffusion(Dims(2, 1), horizon=2, execute=2, history=3, eyes=EYES)
    table = chunk_table(some, policy.spec)
    for row, (episode, step) in enumerate([(0, t) for t in range(7)] + [(1, t) for t in range(5)]):
        wanted = some[episode].images["top"][[max(step + k, 0) for k in (-2, -1, 0)]]
        got = table.chunks[torch.tensor([row])].observation.picture("top", (SIZE, SIZE))
        assert np.array_equal(got[0].numpy(), wanted)
    both = concatenate([table.chunks, table.chunks])
    assert isinstance(both.observation.images["top"], Frames)
    at = torch.tensor([3, 15])
    assert torch.equal(both[at].observation.images["top"], table.chunks[at % 12].observation.images["top"])
    mixed = joined([table.chunks.observation.images["top"], table.chunks[at % 12].observation.images["top"]])
    assert torch.equal(mixed[12:], table.chunks[at % 12].observation.images["top"])


def test_missing_and_other_pictures_are_told(head):
    policy = head()
    blind = [Trajectory(t.observation, t.action, t.reward, t.success, seed=3) for t in episodes(1)]
    with pytest.raises(InputError, match=r"seed 3\) without pictures by 'top'"):
        chunk_table(blind, policy.spec)
    with pytest.raises(InputError, match=r"images\[top\]: got shape \(8, 16, 16, 3\), wanted \('any', 32, 32, 3\)"):
        chunk_table(episodes(1), head(size=32).spec)
    state, generator = torch.zeros(2, 1, 2), torch.Generator()
    with pytest.raises(InputError, match=r"no pictures by 'top' \(none\)"):
        policy.act(Observation(state), generator)
    with pytest.raises(InputError, match=r"no pictures by 'top' \(those by side\)"):
        policy.act(Observation(state, {"side": drawn(generator, 2, 1, 16, 16, 3)}), generator)
    with pytest.raises(InputError, match=r"images\[top\]"):
        policy.act(Observation(state, {"top": drawn(generator, 2, 1, 16, 18, 3)}), generator)


def test_numbers_of_the_state_that_are_hidden_do_not_reach_the_policy():
    torch.manual_seed(0)
    eyes = {**EYES, "state": [1]}
    policy = Flow(Dims(2, 1), horizon=2, execute=2, eyes=eyes)
    generator = torch.Generator().manual_seed(0)
    pictures = {"top": drawn(generator, 3, 1, SIZE, SIZE, 3)}
    state = torch.randn(3, 1, 2, generator=generator)
    conditions = [
        policy.encode(Observation(state + torch.tensor(move), pictures))
        for move in ([0.0, 0.0], [5.0, 0.0], [0.0, 1.0])
    ]
    assert torch.equal(conditions[0], conditions[1]) and not torch.equal(conditions[0], conditions[2])
    with pytest.raises(InputError, match=r"eyes\.state: got \[2\]"):
        Flow(Dims(2, 1), eyes={**EYES, "state": [2]})


def test_two_cameras_are_seen_apart(head):
    policy = head(cameras=["top", "wrist.left"])
    generator = torch.Generator().manual_seed(0)
    one, two, other = (drawn(generator, 2, 1, SIZE, SIZE, 3) for _ in range(3))
    state = torch.zeros(2, 1, 2)
    encoded = [
        policy.encode(Observation(state, {"top": a, "wrist.left": b}))
        for a, b in ((one, two), (one, other), (other, two))
    ]
    assert encoded[0].shape == (2, 32)
    assert torch.equal(encoded[0][:, :16], encoded[1][:, :16]) and not torch.equal(
        encoded[0][:, 16:], encoded[1][:, 16:]
    )
    assert torch.equal(encoded[0][:, 16:], encoded[2][:, 16:])


def watched(policy, monkeypatch):
    """What `loss` and `score` of a policy are given."""
    seen = {"loss": [], "score": []}
    for name in seen:
        real = getattr(policy, name)

        def call(*given, name=name, real=real):
            seen[name].append(given[-2].observation.images["top"])
            return real(*given)

        monkeypatch.setattr(policy, name, call)
    return seen


def test_pictures_are_changed_in_cloning_and_never_in_scoring(head, monkeypatch):
    table = chunk_table(episodes(2), head().spec)
    originals = {p.numpy().tobytes() for p in table.chunks[:].observation.images["top"]}

    def share(pictures):
        return np.mean([p.numpy().tobytes() in originals for p in torch.cat(pictures)])

    policy = head()
    seen = watched(policy, monkeypatch)
    list(clone(policy, table, steps=3, lr=1e-4, batch=16, generator=torch.Generator().manual_seed(0)))
    assert share(seen["loss"]) < 0.3
    reference = policy.reference()
    pairs = PairTable(torch.tensor([0, 2]), torch.tensor([1, 3]), torch.ones(2), torch.ones(2))
    seen = watched(policy, monkeypatch)
    settings = AlignSettings(steps=2, pairs_per_step=2, chunks_per_trajectory=2, anchor_chunks=16)
    logs = list(
        align(
            policy, reference, table, pairs, torch.tensor([0, 2]), sigmoid, settings, torch.Generator().manual_seed(0)
        )
    )
    looks = 1 + settings.steps  # the check of the zero point, then every step
    assert share(seen["loss"]) < 0.3 and len(seen["score"]) == looks and share(seen["score"]) == 1.0
    assert logs[0]["align/rho_winner"] == logs[0]["align/rho_loser"] == 0.0, "the zero point, in training mode"
    assert logs[0]["align/preference"] == pytest.approx(np.log(2), rel=1e-6)


def test_cloning_and_trajectory_dpo_learn_what_only_the_picture_shows(head):
    """In red pictures right is preferred, in blue ones left; states say nothing, and cloning sees both alike often."""
    some = episodes()
    policy = head(shift=1)
    table = chunk_table(some, policy.spec)
    fit_normalizer(policy, table)
    generator = torch.Generator().manual_seed(0)
    list(clone(policy, table, steps=150, lr=3e-3, batch=32, generator=generator))
    first = torch.arange(0, len(some), 2)  # of each colour, right then left
    right_wins = torch.tensor([1.0, 0.0]).repeat(len(first) // 2)
    pairs = PairTable(first, first + 1, right_wins, torch.ones(len(first)))
    anchors = torch.where(right_wins > 0.5, first, first + 1)
    settings = AlignSettings(steps=80, lr=3e-3, pairs_per_step=6, chunks_per_trajectory=4, anchor_chunks=16)
    list(align(policy, policy.reference(), table, pairs, anchors, sigmoid, settings, generator))
    unseen = [coloured(0.0, red, 900 + k).images["top"][:4] for k, red in enumerate((True, False))]
    means = [
        float(policy.act(Observation(torch.zeros(4, 1, 2), {"top": torch.from_numpy(p)[:, None]}), generator).mean())
        for p in unseen
    ]
    assert means[0] > 0.3 and means[1] < -0.3, means


def test_beyond_a_reference_each_side_looks_with_its_own_eyes():
    torch.manual_seed(0)
    make = HEADS["flow"]
    policy, reference = make().eval(), make().eval()
    policy.sample_steps = reference.sample_steps = 1
    generator = torch.Generator().manual_seed(0)
    seen = Observation(torch.zeros(3, 1, 2), {"top": drawn(generator, 3, 1, SIZE, SIZE, 3)})
    noise = torch.randn(3, 2, 1, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        own, other = (p.velocity(noise, torch.ones(3), p.encode(seen)) for p in (policy, reference))
    wanted = policy.normalizer.unaction((noise - (other + 1.5 * (own - other))).clamp(-1, 1))
    realigned = Realigned(policy, reference, guidance=0.5)
    assert_close(realigned.act(seen, torch.Generator().manual_seed(5)), wanted)
    assert realigned.spec.pictures.cameras == ("top",)


def test_pictures_drawn_otherwise_are_refused_by_name():
    render = {"height": 84, "width": 84, "shadows": False, "gl": "egl", "cameras": ["corner"]}
    spec = PictureSpec(("corner",), render=render)
    spec.check_drawn("here", {**render, "cameras": ["corner", "wrist"]})
    with pytest.raises(InputError, match=r"here: got pictures of 96x96, wanted 84x84[\s\S]*env\.image_size=84"):
        spec.check_drawn("here", {**render, "height": 96, "width": 96})
    with pytest.raises(InputError, match=r"gl: got 'osmesa', wanted 'egl', shadows: got True, wanted False"):
        spec.check_drawn("here", {**render, "shadows": True, "gl": "osmesa"})
    PictureSpec(("corner",)).check_drawn("here", render)  # nobody recorded how its pictures were drawn


def test_eyes_without_a_camera_and_unknown_encoders_are_refused():
    with pytest.raises(InputError, match="at least one camera"):
        Eyes(cameras=[])
    with pytest.raises(InputError, match="wanted small, resnet18 or backbone"):
        Eyes(cameras=["top"], encoder="large")
    with pytest.raises(InputError, match="wanted softmax or mean"):
        Eyes(cameras=["top"], pool="max")
    with pytest.raises(InputError, match=r"eyes\.folder=DIR"):
        Eyes(cameras=["top"], encoder="backbone")
