"""SFT and RFT through TRL: `SFTTrainer` and `GRPOTrainer`, extended at their hooks.

Differences from TRL's stock behaviour, all tested for equality:
 1. a full fine-tune resumes with its weights (stock resumes without them for this architecture);
 2. completions are drawn by `helpers.model.generate` (the official `rollout_func` hook);
 3. forward passes are packed: each picture and prompt once per group (`compute_loss` of SFT, one private method
    of GRPO). `Settings.fast=False` switches 2 and 3 off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import ProcessorMixin
from trl import GRPOTrainer, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from helpers.errors import UserError
from helpers.model.flops import Tally
from helpers.model.forward import Model, Patches, base_of, scored_logits
from helpers.model.generate import Sampling, generate
from helpers.model.packing import Branch, Group, pack
from helpers.model.score import pack_completions, patches, prompt_ids
from helpers.train.pace import Pace
from helpers.world.boards import Prompted

Shared = tuple[list[int], list[int]]  # a prompt's ids, and the samples of a batch that share it with its picture


def load_weights(model: Model, folder: str) -> None:
    """Load a checkpoint's weights into a model. Raises UserError where they are another model's.

    Stock `_load_from_checkpoint` reads hub key names raw and loads nothing (transformers issue 43701).
    """
    stored = type(model).from_pretrained(folder, dtype=torch.float32).state_dict()
    missing, unexpected = model.load_state_dict(stored, strict=False)
    if unexpected or any("lm_head" not in key for key in missing):
        raise UserError(f"{folder} does not hold this model; remove it to start the run anew.")


class Paced:
    """A mix-in for TRL's trainers whose rate follows the pace of a run that goes until the puzzle is solved.

    It also resumes a full fine-tune with its weights.
    """

    pace: Pace | None = None

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Stock's scheduler where the number of steps is fixed."""
        if self.pace is None or not self.pace.until:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self.pace.share)
        return self.lr_scheduler

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Model | None = None) -> None:
        if os.path.exists(os.path.join(resume_from_checkpoint, "adapter_config.json")):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_weights(model or self.model, resume_from_checkpoint)


class Counting:
    """A mix-in for TRL's trainers that counts what training costs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Nothing is spent yet."""
        self.tally = Tally()
        super().__init__(*args, **options)


class StudySFTTrainer(Counting, Paced, SFTTrainer):
    """TRL's `SFTTrainer` with packed forward passes where the collator made them.

    A loss of another kind is a subclass with its own `token_losses`.
    """

    def token_losses(self, logits: torch.Tensor, target: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """Loss of each completion token, (M,), from fp32 logits (M, V) and ids (M,); `inputs`: the whole batch."""
        losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        # Packed rows never reach TRL's own loss, so its switch is obeyed here: -p log p, p without a gradient.
        return losses * (-losses).exp().detach() if self.args.loss_type == "dft" else losses

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The mean of `token_losses`; logs the share of tokens that the model would have chosen, as TRL does."""
        if "packed" not in inputs and type(self).token_losses is StudySFTTrainer.token_losses:
            self.tally.known = False  # TRL's own pass
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        logits, target = _completion_logits(model, inputs, self.tally)
        self.tally.trained_tokens += len(target)
        hits = (logits.detach().argmax(-1) == target).float().mean()
        self._metrics["train"]["mean_token_accuracy"].append(float(hits))
        losses = self.token_losses(logits, target, inputs)
        # with gradient accumulation the mean is over the tokens of all its batches, a number that TRL counts
        loss = losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss


class StudyGRPOTrainer(Counting, Paced, GRPOTrainer):
    """TRL's `GRPOTrainer` whose log-probs come from packed rows.

    The private method is the one place where TRL computes them, for policy, old policy and reference alike;
    overriding it keeps every loss type and option. A test compares it with the stock method.
    """

    fast = True
    epochs_done = 0

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        """TRL's sampler, moved on by the epochs that a resumed run has behind it.

        Private, because stock begins with the first epoch's order again: a run that resumes in its second epoch would
        draw for other boards than one that was never stopped.
        """
        sampler = super()._get_train_sampler(dataset)
        for _ in range(self.epochs_done):
            for _ in sampler:
                pass
        return sampler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """TRL's loss; counts the tokens that it has a gradient for."""
        # Without a KL term or an entropy bonus none reaches a completion without advantage. Equal rewards leave 0, but
        # for their rounding, which is divided by 1e-4.
        all_of_them = self.beta > 0 or self.args.entropy_coef > 0
        weighed = slice(None) if all_of_them else inputs["advantages"].abs() > 1e-2
        self.tally.trained_tokens += int(inputs["completion_mask"][weighed].sum())
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **extra
    ):
        # What packing does not cover goes TRL's way: prompts without pictures, and losses of expert routing.
        if not self.fast or extra.get("pixel_values") is None or extra.get("compute_aux_loss"):
            self.tally.known = False
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **extra
            )
        _, rows, columns = extra["image_grid_thw"][0].tolist()  # one size for all: what is drawn at once is alike
        merge = base_of(model).config.vision_config.spatial_merge_size
        pictures = Patches(extra["pixel_values"].reshape(len(input_ids), rows * columns, -1), rows, columns, merge)
        # TRL scores under the reference all that it has drawn in one call, in parts of `batch_size`.
        size, parts = batch_size or len(input_ids), []
        for start in range(0, len(input_ids), size):
            part = slice(start, start + size)
            own, tokens = replace(pictures, values=pictures.values[part]), (input_ids[part], attention_mask[part])
            parts.append(packed_logps(model, (*tokens, logits_to_keep), own, self.temperature, self.tally))
        logps, entropies = (torch.cat(column) for column in zip(*parts, strict=True))
        return logps, entropies if compute_entropy else None, None


def packed_logps(
    model: Model,
    tokens: tuple[torch.Tensor, torch.Tensor, int],
    pictures: Patches,
    temperature: float,
    tally: Tally | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-token log-probs and entropies, each (B, C), of completions (padded right) behind prompts (padded left).

    `tokens` = (input ids (B, P + C), attention mask, C); `pictures` hold one a sample; TRL divides the logits by the
    sampling `temperature`. Samples with the same prompt and picture share one packed row. `tally` counts the pass.
    """
    input_ids, mask, width = tokens
    config, values = base_of(model).config, pictures.values
    shared = _shared_prompts(input_ids[:, :-width], mask[:, :-width], values)
    given = [own[real].tolist() for own, real in zip(input_ids[:, -width:], mask[:, -width:].bool(), strict=True)]
    groups = [Group(ids, row, [Branch(given[i]) for i in members]) for row, (ids, members) in enumerate(shared)]
    order = [i for _, members in shared for i in members]  # branch number -> number of the sample in TRL's batch
    patches = replace(pictures, values=values[[members[0] for _, members in shared]])
    packed = pack(groups, config.image_token_id, patches.grid)
    if tally is not None:
        tally.scored(model, packed, patches)
    logits = scored_logits(model, packed, patches).float()
    # a division by 1 would copy all logits for nothing
    logps = torch.log_softmax(logits if temperature == 1 else logits / temperature, -1)
    entropy = -(logps.exp() * logps).sum(-1)  # with its gradient: TRL's entropy bonus needs it
    chosen = logps.gather(1, packed.target[:, None].to(logps.device))[:, 0]
    counts = torch.bincount(packed.branch, minlength=len(order))
    # A branch's tokens stand together, so a token's position is its distance from its branch's first.
    position = torch.arange(len(packed.branch)) - (counts.cumsum(0) - counts)[packed.branch]
    place = torch.tensor(order)[packed.branch].to(logps.device), position.to(logps.device)
    # padding gets 0, not TRL's log-prob of a padding token: the completion mask hides either
    empty = torch.zeros(len(input_ids), width, device=logps.device)
    return empty.index_put(place, chosen), empty.index_put(place, entropy)


def _shared_prompts(prompts: torch.Tensor, mask: torch.Tensor, values: torch.Tensor) -> list[Shared]:
    """Unique (prompt, picture) pairs: for each its prompt ids without padding, and the samples that share it.

    Found by value, not by position: TRL shuffles a batch between drawing it and learning from it.
    """
    shared: dict[tuple, Shared] = {}
    for i, (prompt, real) in enumerate(zip(prompts, mask.bool(), strict=True)):
        ids = prompt[real].tolist()
        shared.setdefault((*ids, values[i].float().cpu().numpy().tobytes()), (ids, []))[1].append(i)
    return list(shared.values())


class PackedCollator:
    """Collates SFT rows into packed rows: picture, prompt, completion (its end token and line break are trained)."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        asked = [Prompted(np.asarray(e["images"][0]), e["prompt"][0]["content"]) for e in examples]
        texts = [[e["completion"][0]["content"]] for e in examples]
        packed, pictures = pack_completions(self.processor, list(zip(asked, texts, strict=True)), line_break=True)
        return {"packed": packed, "patches": pictures, "labels": packed.target}  # labels: TRL counts tokens


def flattened(processor: ProcessorMixin, packed: PackedCollator | None) -> Callable[[Sequence[dict]], dict]:
    """A collator that takes rows of several samples apart; TRL's own collates what cannot be packed."""
    collate = packed or DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)

    def flat(rows: Sequence[dict]) -> dict:
        samples = [sample for row in rows for sample in (row, *row["others"])]
        return collate([{k: s[k] for k in ("images", "prompt", "completion")} for s in samples])

    return flat


def group_rollouts(
    processor: ProcessorMixin, tally: Tally | None = None
) -> Callable[[list, GRPOTrainer], dict[str, list]]:
    """TRL's `rollout_func`: prompts arrive repeated once per completion; each unique one is encoded once.

    `tally` counts what is drawn.
    """

    def rollout(prompts: list, trainer: GRPOTrainer) -> dict[str, list]:
        """Completions of all prompts, with ids and log-probs as TRL wants them."""
        size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        unique = [_content(p) for p in prompts[::size]]  # TRL's sampler puts a group's copies side by side
        pictures = patches(processor, [image for image, _ in unique])
        ids = [prompt_ids(processor.tokenizer, text, pictures.grid) for _, text in unique]
        seed = int(torch.randint(2**31, (1,)))  # from torch's state, which a checkpoint restores
        sampling = Sampling(size, trainer.temperature, trainer.max_completion_length, seed)
        model = trainer.accelerator.unwrap_model(trainer.model)
        drawn = generate(model, processor.tokenizer, ids, pictures, sampling)
        if tally is not None:
            tally.drawn(model, ids, pictures, drawn, sampling)
        flat = [r for row in drawn for r in row]
        return {
            "prompt_ids": [p for p in ids for _ in range(size)],
            "completion_ids": [list(r.ids) for r in flat],
            "logprobs": [list(r.logps) for r in flat],
            "logp_policy": [sum(r.logps) for r in flat],
        }

    return rollout


def _content(prompt: list[dict[str, Any]]) -> tuple[np.ndarray, str]:
    """(picture, text) of a conversational prompt as TRL passes it on: one block of each kind."""
    blocks = {block["type"]: block for block in prompt[-1]["content"]}
    return np.asarray(blocks["image"]["image"]), blocks["text"]["text"]


def token_kl(logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats, (M,), of the softmaxes p of `logits` and q of `other`, both (M, V): sum p (log p - log q)."""
    ours, theirs = logits.log_softmax(-1), other.log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1)


class StudyKLTrainer(StudySFTTrainer):
    """SFT whose loss is the mean over completion tokens of cross-entropy + beta KL(model || frozen base).

    The KL is exact: over the whole vocabulary, at the corpus's own tokens. Both passes are packed where SFT's are.
    """

    def __init__(self, *args: Any, frozen: Model, beta: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.frozen, self.beta = frozen.eval().requires_grad_(False), beta

    def token_losses(self, logits: torch.Tensor, target: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """Cross-entropy plus beta times the KL of the model from the frozen base."""
        with torch.no_grad():
            base, _ = _completion_logits(self.frozen, inputs, self.tally)
        apart = token_kl(logits, base)
        self._metrics["train"]["kl"].append(float(apart.detach().mean()))
        return super().token_losses(logits, target, inputs) + self.beta * apart


class StudyDreamTrainer(StudySFTTrainer):
    """SFT whose loss is cross-entropy + beta KL(base || model) at `dreams`: text that the frozen base wrote itself.

    The KL is the mean over the dreams' tokens of sum_v p(v) (log p(v) - log q(v)), p the base's and q the model's
    probabilities, in nats and exact over the vocabulary. This way round it is an expectation over what the base writes:
    dreams that were written once, before the run, give its gradient, sum_v (q(v) - p(v)) d logit(v). KL(model || base)
    would need text of the model as it is at each step. A step has as many dreams as other samples, tasks in turn.
    """

    def __init__(self, *args: Any, frozen: Model, beta: float, dreams: Dataset, **options: Any) -> None:
        super().__init__(*args, **options)
        self.frozen, self.beta, self.dreams = frozen.eval().requires_grad_(False), beta, dreams

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """SFT's loss plus beta times the KL at this step's dreams."""
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        apart = self.dream_kl(model)
        self._metrics["train"]["dream_kl"].append(float(apart.detach()))
        return (found[0] + self.beta * apart, found[1]) if return_outputs else found + self.beta * apart

    def dream_kl(self, model: Model) -> torch.Tensor:
        """KL of the model from the base at the dreams of the step that is under way: a scalar, nats per token."""
        each = self.args.per_device_train_batch_size
        first = each * self.state.global_step  # a checkpoint restores it: a resumed run goes on where it stood
        rows = [self.dreams[k % len(self.dreams)] for k in range(first, first + each)]
        batch = send_to_device(self.data_collator(rows), self.accelerator.device)
        with torch.no_grad():
            base, _ = _completion_logits(self.frozen, batch, self.tally)
        logits, target = _completion_logits(model, batch, self.tally)
        self.tally.trained_tokens += len(target)
        return token_kl(base, logits).mean()


def _completion_logits(model: Model, inputs: dict[str, Any], tally: Tally) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 logits (M, V) and ids (M,) of a batch's completion tokens: packed, or by the model's own pass.

    `tally` counts a packed pass.
    """
    if "packed" in inputs:
        tally.scored(model, inputs["packed"], inputs["patches"])
        logits = scored_logits(model, inputs["packed"], inputs["patches"]).float()
        return logits, inputs["packed"].target.to(logits.device)
    tally.known = False
    given = {name: value for name, value in inputs.items() if name != "labels"} | {"use_cache": False}
    logits, labels = model(**given).logits[:, :-1].float(), inputs["labels"][:, 1:]
    return logits[labels != -100], labels[labels != -100]


class StudyReinforceTrainer(StudyGRPOTrainer):
    """GRPO's trainer with the advantages that its recipe states: REINFORCE, nothing is pushed down."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        # private, because TRL always subtracts the group's mean and has no switch for it
        batch = super()._generate_and_score_completions(inputs)
        # The last reward function is the recorder, which has just seen this batch.
        return batch | {"advantages": batch["advantages"].new_tensor(self.reward_funcs[-1].used)}
