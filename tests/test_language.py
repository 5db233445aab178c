"""Sentences: what they become, what they are refused for, and that they travel with observations and stored episodes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from episodes import episode

from robopref.arrays import InputError
from robopref.data.content import trajectory_hash
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.networks.language import WordEmbedding, hashed, words_of
from robopref.types import Chunks, Observation, concatenate


def test_case_punctuation_and_spaces_are_no_words():
    assert words_of("  Open the DRAWER, please! ", 8) == ["open", "the", "drawer", "please"]
    assert np.array_equal(hashed("Open it.", 4, 64), hashed("open  IT", 4, 64))


@pytest.mark.parametrize(
    ("sentence", "message"), [("a b c d e", "got 5 words .* wanted at most 4"), (" ?! ", "wanted at least one word")]
)
def test_a_sentence_longer_than_the_context_or_without_words_is_refused(sentence, message):
    with pytest.raises(InputError, match=message):
        WordEmbedding(4, 8)([sentence])


def test_features_are_the_same_in_every_process():
    from zlib import crc32

    table = hashed("ab", 2, 1000)
    wanted = [1 + crc32(one) % 1000 for one in (b"word:ab", b"<ab", b"ab>", b"<ab>")]
    assert table[0, :4].tolist() == wanted and not table[0, 4:].any() and not table[1].any()


def test_a_row_depends_on_its_own_sentence_only():
    torch.manual_seed(0)
    embed = WordEmbedding(5, 16)
    vectors, live = embed(["open the drawer", "close it", "open the drawer"])
    assert vectors.shape == (3, 5, 16) and live.tolist()[1] == [True, True, False, False, False]
    assert torch.equal(vectors[0], vectors[2]) and torch.equal(embed(["close it"])[0][0], vectors[1])
    assert not torch.equal(vectors[0], vectors[1])


def test_an_unseen_word_lies_near_a_word_of_the_same_stem():
    torch.manual_seed(0)
    embed = WordEmbedding(1, 64)
    with torch.no_grad():
        embed.place.zero_()
    drawer, drawers, window = (embed([word])[0].flatten() for word in ("drawer", "drawers", "window"))
    near, far = (torch.cosine_similarity(drawer, other, dim=0).item() for other in (drawers, window))
    assert near > 0.4 > abs(far) + 0.1


def test_sentences_follow_the_rows_of_an_observation():
    seen = Observation(torch.arange(3.0).view(3, 1, 1), sentence=("a", "b", "c"))
    assert seen[torch.tensor([2, 0, 2])].sentence == ("c", "a", "c")
    assert seen[torch.tensor([False, True, True])].sentence == ("b", "c")
    assert seen[1:].sentence == ("b", "c") and Observation(seen.state)[1:].sentence == ()
    chunks = Chunks(seen, torch.zeros(3, 2, 1), torch.ones(3, 2, 1))
    assert concatenate([chunks, chunks[:1]]).observation.sentence == ("a", "b", "c", "a")
    with pytest.raises(InputError, match="got 2 sentences, wanted 3"):
        Observation(seen.state, sentence=("a", "b"))


def test_a_stored_episode_keeps_what_was_asked(tmp_path):
    plain = episode(0, 5)
    asked = replace(plain, sentence="öffne die Schublade")
    assert trajectory_hash(asked) != trajectory_hash(plain) and asked.window(1, 3).sentence == asked.sentence
    with StoreWriter(tmp_path / "store") as writer:
        writer.add(plain)
        writer.add(asked)
    store = TrajectoryStore(tmp_path / "store")
    assert [t.sentence for t in store] == ["", asked.sentence] == [t.sentence for t in store.load()]
    assert store.episode_hash(1) == trajectory_hash(store[1])
