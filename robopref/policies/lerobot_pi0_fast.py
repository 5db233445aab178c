"""lerobot's pi0-FAST (Pertsch et al. 2025) from its checkpoint folder: a chunk of action tokens with an exact score.

s = sum over a chunk's tokens and the end marker of log softmax(logits)[token] over the whole vocabulary, after the words "Action: ", which
belong to the prompt. Tokens describe frequencies of the whole chunk, so a chunk of which any step was executed counts as a whole, one of
which none was as 0. What was acted turns into the same numbers again, though not always by the same tokens: the byte pairs of a sampled
chunk may be split otherwise than its encoding is.

lerobot trains with a prompt that does not see the beginning of the answer and acts with one that does. Scores are those of the policy as
it acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.arrays import InputError
from robopref.networks.backbones import extra
from robopref.networks.bins import chosen, uniforms
from robopref.networks.fast_tokens import FastTokens
from robopref.networks.history import no_draws
from robopref.networks.lerobot_pi import LeRobotPi, read_tokenizer, with_state
from robopref.networks.recompute import paused
from robopref.protocols import Generators
from robopref.types import Chunks, Draws, Observation


class LeRobotPi0Fast(LeRobotPi):
    """Predicts the tokens of a chunk one after the other by lerobot's own network and statistics.

    checkpoint: the content of its config.json, whose n_action_steps must be its chunk_size, since lerobot decodes so many;
    tokenizer, action_tokenizer: folders of PaliGemma's and of FAST's; bfloat16: of the weights. Temperature 0 takes the likeliest.
    """

    kind = "pi0_fast"

    def __init__(
        self, checkpoint: Mapping[str, Any], tokenizer: str, action_tokenizer: str,
        temperature: float | None = None, bfloat16: bool = False,
    ) -> None:  # fmt: skip
        steps = (checkpoint.get("n_action_steps"), checkpoint.get("chunk_size"))
        if steps[0] != steps[1]:
            raise InputError(
                f"LeRobotPi0Fast: got n_action_steps={steps[0]} of chunk_size={steps[1]}, wanted equal ones: lerobot would "
                "decode the tokens of a long chunk as a short one. Set both to the chunk it was trained on."
            )
        fast = FastTokens(action_tokenizer)
        super().__init__(checkpoint, tokenizer, bfloat16, action_tokenizer=action_tokenizer, temperature=temperature)
        self.fast, told = fast, self.body.policy.config
        self.temperature = told.temperature if temperature is None else temperature
        self.longest = int(told.max_decoding_steps)
        marks = read_tokenizer(tokenizer, add_eos_token=True, add_bos_token=False)
        self.first = int(marks.vocab_size) - 1 - told.fast_skip_tokens  # the id of action token 0; others are below
        self.begin, self.end = int(marks.bos_token_id), int(marks.convert_tokens_to_ids("|"))
        self.prefix = [int(i) for i in marks.encode("Action: ", add_special_tokens=False)]

    @staticmethod
    def bare(known: Any) -> Any:
        """lerobot's policy without its tokenizers: reading them would run Python code of a folder."""
        modeling = extra("lerobot.policies.pi0_fast.modeling_pi0_fast", "lerobot", "lerobot")

        class Bare(known):
            def __init__(self, config: Any) -> None:
                super(known, self).__init__(config)
                config.validate_features()
                self.config, self.rtc_processor = config, None
                self.model = modeling.PI0FastPytorch(config)

        return Bare

    @classmethod
    def from_folder(cls, folder: Path, **options: Any) -> Self:
        """The policy of a folder as lerobot writes it; tokenizer=DIR, action_tokenizer=DIR where they are not in it.

        Raises `InputError` for what is missing or does not fit.
        """
        options.setdefault("action_tokenizer", str(folder / "action_tokenizer"))
        return super().from_folder(folder, **options)

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units."""
        with paused(self.body):  # layers that are computed again keep nothing of what they have seen
            ids = self._sampled(observation, generator)
        dims, horizon = self._spec.dims, self._spec.horizon
        found = torch.stack(
            [torch.from_numpy(self.fast.decode(one, horizon, dims.action)) for one in map(self.cleaned, ids.tolist())]
        )
        return self.normalizer.unaction(found.to(self.normalizer.low))

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """Nothing is drawn: the score is exact."""
        return no_draws(chunks)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Log-likelihood (B,) of the tokens of executed chunks, at temperature 1."""
        each = self.log_probs(chunks.observation, self.tokenize(chunks.action))
        return each.sum(dim=1) * (chunks.mask.amax(dim=(1, 2)) > 0)

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Deviance per executed number, -2 log-likelihood / numbers, (B,)."""
        return -2 * self.score(chunks, draws) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def tokenize(self, action: Tensor) -> list[list[int]]:
        """Actions (B, H, A) in environment units -> ids of each row, the end marker last."""
        return [[*(self.first - i for i in self.fast.encode(one)), self.end] for one in self.normalizer.action(action)]

    def cleaned(self, ids: Sequence[int]) -> list[int]:
        """FAST's ids in what was said: before the end marker, without "Action: "."""
        said = list(ids)[: ids.index(self.end)] if self.end in ids else list(ids)
        at, width = 0, len(self.prefix)
        while at <= len(said) - width:
            if said[at : at + width] == self.prefix:
                del said[at : at + width]
            else:
                at += 1
        return [self.first - one for one in said]

    def log_probs(self, observation: Observation, answers: Sequence[Sequence[int]]) -> Tensor:
        """Log-likelihood of every id of each row's answer after "Action: ", (B, longest), 0 behind a row's end."""
        told = [torch.tensor([*self.prefix, *one], device=self.normalizer.low.device) for one in answers]
        ids = _padded(told)
        mask = _padded([torch.ones_like(one) for one in told]).bool()
        embedded, seen, attention, *_ = self.body.policy.model.embed_prefix_fast(*self._prompt(observation), ids, mask)
        hidden, _ = self._run(embedded, attention, seen.cumsum(dim=1) - 1, None, cached=False)
        width = ids.shape[1] - len(self.prefix)
        logits = self._logits(hidden[:, -width - 1 : -1])  # the place before each id predicts it
        each = -F.cross_entropy(logits.transpose(1, 2), ids[:, -width:], reduction="none")
        return each * mask[:, -width:]

    def _sampled(self, observation: Observation, generator: Generators) -> Tensor:
        """Ids (B, steps) one after the other, until every row has ended."""
        model = self.body.policy.model
        uniform = uniforms(self.longest, len(observation), generator).to(self.normalizer.low.device)
        embedded, seen, attention, *_ = model.embed_prefix_fast(*self._prompt(observation))
        place, cache, taken = seen.cumsum(dim=1) - 1, None, []
        ended = torch.zeros(len(observation), dtype=torch.bool, device=uniform.device)
        for step in range(self.longest):
            hidden, cache = self._run(embedded, attention, place, cache, cached=True)
            taken.append(chosen(self._logits(hidden[:, -1]), uniform[:, step], self.temperature))
            ended |= taken[-1] == self.end
            if bool(ended.all()):
                break
            embedded = model.paligemma_with_expert.embed_language_tokens(taken[-1])[:, None]
            seen = F.pad(seen, (0, 1), value=True)
            attention, place = seen[:, None], seen.sum(dim=1, keepdim=True) - 1
        return torch.stack(taken, dim=1)

    def _prompt(self, observation: Observation) -> tuple[Any, ...]:
        """Pictures and their masks, ids of task and state and their mask, the mark where the answer begins last."""
        batch = self.latest(observation)
        ids, mask = self.tokens(with_state(self.sentences(observation), batch["observation.state"]))
        pictures = self.body.policy._preprocess_images(batch)
        return *pictures, F.pad(ids, (0, 1), value=self.begin), F.pad(mask, (0, 1), value=True)

    def _run(self, embedded: Tensor, attention: Tensor, place: Tensor, cache: Any, cached: bool) -> tuple[Tensor, Any]:
        """Hidden states (B, S, width) of embedded ids that may look where `attention` (B, S, all) says."""
        network = self.body.policy.model.paligemma_with_expert
        kept = network.paligemma.model.language_model.layers[0].self_attn.q_proj.weight.dtype
        embedded = embedded.to(kept) if kept == torch.bfloat16 else embedded
        utils = extra("lerobot.policies.common.vla_utils", "lerobot", "lerobot")
        (hidden, _), cache = network.forward(
            attention_mask=utils.prepare_attention_masks_4d(attention, dtype=embedded.dtype), position_ids=place,
            past_key_values=cache, inputs_embeds=[embedded, None], use_cache=cached, adarms_cond=[None, None],
        )  # fmt: skip
        return hidden, cache

    def _logits(self, hidden: Tensor) -> Tensor:
        head = self.body.policy.model.paligemma_with_expert.paligemma.lm_head
        return head(hidden.to(head.weight.dtype)).float()


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """Rows of several lengths as one (B, longest), 0 behind."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
