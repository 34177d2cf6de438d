"""Conversations as tokens: the one place that decides what a language model reads of a prompt and a response.

Conventions
-----------
A conversation is the turns of a prompt and the response as the assistant's turn, rendered by the tokenizer's chat template and
tokenised without further special tokens. A tokenizer without a template is given a plain one (`plain_template`), which travels with
every checkpoint: whoever applies the saved template reads the tokens that were trained on. The value of a response is read at the last
token of its conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting, SeamarkError
from seamark.records import Feedback

Tokens = NDArray[np.int32]
Overlong = Literal["refuse", "cut"]
Turns = tuple[str | list[dict[str, Any]] | None, str]
"""A prompt, as a text, as turns or none, and the response to it."""

_AT_ONCE = 10_000
"""Texts tokenised in one call."""
_NAMED = 3
"""Conversations that an error quotes."""
_QUOTED = 60
"""Characters of a text that an error quotes."""


@dataclass(frozen=True)
class Conversations:
    """A tokenizer, its template and the longest conversation that is read."""

    tokenizer: Any
    longest: int
    """Most tokens of a conversation."""
    overlong: Overlong = "refuse"
    """What becomes of longer ones: an error, or the oldest tokens after the first are cut."""

    @staticmethod
    def of(
        tokenizer: Any, *, positions: int | None, max_length: int | None = None, overlong: Overlong = "refuse", any_pad: bool = False
    ) -> Conversations:
        """The reading of a tokenizer, of which a copy is given a template where it has none.

        Parameters
        ----------
        positions : most positions of the model; None where it says nothing.
        max_length : most tokens wanted.
        any_pad : take the tokenizer as it is, to score with a model that was trained elsewhere.

        Raises
        ------
        InvalidSetting
            Unless `any_pad`, if the tokenizer has no pad token, or its pad token is the one that ends a text: whoever reads the last token that is no
            pad (transformers) would then read another token than was trained on.
        """
        if tokenizer.pad_token_id is None and not any_pad:
            raise InvalidSetting(
                "pad_token", None, "The tokenizer has none, and rows of a batch need one. Name one: pad_token='<pad>' adds it."
            )
        if tokenizer.pad_token_id == tokenizer.eos_token_id and not any_pad:
            raise InvalidSetting(
                "pad_token", tokenizer.pad_token, "It is also the token that ends a text. Name another: pad_token='<pad>' adds it."
            )
        if not tokenizer.chat_template:
            tokenizer = deepcopy(tokenizer)  # the caller's stays as it is
            tokenizer.chat_template = plain_template(tokenizer)
        stated = tokenizer.model_max_length if tokenizer.model_max_length < 10**6 else None
        limits = [n for n in (positions, stated, max_length) if n]
        if max_length is not None and positions and max_length > positions:
            raise InvalidSetting("max_length", max_length, f"The model has {positions} positions.")
        return Conversations(tokenizer, min(limits, default=2048), overlong)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the tokens: template, vocabulary, how text is divided, special tokens, length."""
        tokenizer = self.tokenizer
        divided = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
        said = (
            tokenizer.chat_template,
            sorted(tokenizer.get_vocab().items()),
            sorted(tokenizer.special_tokens_map.items()),
            # not the post-processor, whose tokens are never asked for
            [divided.get(part) for part in ("model", "normalizer", "pre_tokenizer", "added_tokens")],
            self.longest,
        )
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()

    def render(self, prompt: str | Sequence[Mapping[str, Any]] | None, response: str) -> str:
        """The text of a conversation. A prompt that is one text is the user's turn; without a prompt that turn is empty."""
        turns = [{"role": "user", "content": prompt or ""}] if prompt is None or isinstance(prompt, str) else [dict(m) for m in prompt]
        try:
            return self.tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": response}], tokenize=False)
        except Exception as error:  # whatever a template of jinja raises
            roles = ", ".join(str(m["role"]) for m in turns)
            raise SeamarkError(
                f"the tokenizer's chat template cannot render a conversation of {roles}, assistant ({error}). "
                "Mend the turns of the prompt, or set another tokenizer.chat_template."
            ) from None

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of rendered conversations.

        Raises
        ------
        InvalidSetting
            If a conversation is longer than `longest`, unless they are cut.
        """
        if not texts:
            return []
        ids = self._tokenise(texts)
        long = [i for i, row in enumerate(ids) if len(row) > self.longest]
        if long and self.overlong == "refuse":
            most = max(long, key=lambda i: len(ids[i]))
            raise InvalidSetting(
                "max_length",
                self.longest,
                f"{len(long):,} of {len(ids):,} conversations are longer; the longest has {len(ids[most]):,} tokens ({_quote(texts[most])}). "
                "Raise max_length as far as the model's positions go, leave them out, or cut their oldest tokens with overlong='cut'.",
            )
        for i in long:
            ids[i] = np.concatenate([ids[i][:1], ids[i][-(self.longest - 1) :]])
        return ids

    def lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of texts by themselves."""
        return np.array([len(row) for row in self._tokenise(texts)], dtype=np.int64)

    def _tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        out: list[Tokens] = []
        for start in range(0, len(texts), _AT_ONCE):  # lists of Python numbers take ten times what arrays do
            part = self.tokenizer(list(texts[start : start + _AT_ONCE]), add_special_tokens=False, return_attention_mask=False)
            out += [np.asarray(row, dtype=np.int32) for row in part["input_ids"]]
        return out

    def of_feedback(self, feedback: Feedback) -> list[Tokens]:
        """The tokens of each distinct response in its prompt, in the order of `feedback.responses`.

        Raises
        ------
        SeamarkError
            As `require_readable`, and where two responses to the same prompt are the same once they are cut.
        """
        require_readable(feedback)
        tokens = self.encode([self.render(prompt, text) for prompt, text in turns_of(feedback)])
        _require_distinct(feedback, tokens)
        return tokens


def turns_of(feedback: Feedback) -> list[Turns]:
    """The conversation of each distinct response; a response without a text is an empty one."""
    prompts: list[str | list[dict[str, Any]]] = [
        json.loads(text) if messages else text
        for text, messages in zip(feedback.prompts["text"], feedback.prompts["is_messages"].fill_null(False), strict=True)
    ]
    codes, texts = feedback.responses["prompt"].to_list(), feedback.responses["text"].fill_null("").to_list()
    return [(None if code is None else prompts[code], text) for code, text in zip(codes, texts, strict=True)]


def require_readable(feedback: Feedback) -> None:
    """Everything that a language model is to learn from can be read, and in one way.

    Raises
    ------
    SeamarkError
        If a response has no text or an empty one, or prompts of one text and of turns are mixed.
    """
    texts, ids = feedback.responses["text"], feedback.responses["name"].fill_null(feedback.responses["id"])
    if missing := texts.null_count():
        first = ids.filter(texts.is_null())[0]
        raise SeamarkError(
            f"{missing:,} of {len(texts):,} responses have no text (the first is {first!r}), so a language model cannot read them. "
            "Give the texts, or use Tabular()."
        )
    empty = texts.str.strip_chars() == ""
    if n := int(empty.sum()):
        where = [_prompt_at(feedback, int(row)) for row in empty.arg_true().to_list()[:_NAMED]]
        raise SeamarkError(
            f"{n:,} of {len(texts):,} responses are empty (to the prompts {', '.join(where)}). There is nothing to read in them: "
            "leave their judgments out."
        )
    chat = feedback.prompts["is_messages"].fill_null(False)
    if 0 < int(chat.sum()) < len(chat):
        raise SeamarkError(
            f"{int(chat.sum()):,} of {len(chat):,} prompts are turns of a conversation (such as {_quote(feedback.prompts['text'].filter(chat)[0])}) "
            f"and the others one text (such as {_quote(feedback.prompts['text'].filter(~chat)[0])}). The same words would be read as different "
            "tokens: turn one kind into the other before loading."
        )


def _require_distinct(feedback: Feedback, tokens: Sequence[Tokens]) -> None:
    """Responses that are judged against each other must differ in what is read of them.

    Raises
    ------
    SeamarkError
        With the first two that do not: their judgments would teach nothing (a loss of ln 2 and no gradient).
    """
    seen: dict[tuple[int | None, bytes], int] = {}
    same: list[tuple[int, int]] = []
    for row, (prompt, ids) in enumerate(zip(feedback.responses["prompt"].to_list(), tokens, strict=True)):
        first = seen.setdefault((prompt, ids.tobytes()), row)
        if first != row:
            same.append((first, row))
    if same:
        one, two = (feedback.responses["text"][row] for row in same[0])
        raise SeamarkError(
            f"{len(same):,} responses are the same tokens as another to the same prompt once they are cut to length and trimmed by the "
            f"template: {_quote(one)} and {_quote(two)}. Raise max_length, or leave these judgments out."
        )


def plain_template(tokenizer: Any) -> str:
    """A template for a tokenizer without one: turns apart by an empty line, between the tokens that it begins and ends a text with."""
    begin = tokenizer.cls_token or (tokenizer.bos_token if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else None)
    end = tokenizer.sep_token if tokenizer.cls_token else tokenizer.eos_token
    turns = "{% for message in messages %}{% if not loop.first and message['content'] and messages[loop.index0 - 1]['content'] %}{{ '\\n\\n' }}{% endif %}{{ message['content'] }}{% endfor %}"
    return f"{{{{ {json.dumps(begin or '')} }}}}{turns}{{{{ {json.dumps(end or '')} }}}}"


def _prompt_at(feedback: Feedback, row: int) -> str:
    code = feedback.responses["prompt"][row]
    return "none" if code is None else _quote(feedback.prompts["text"][code])


def _quote(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else text[: _QUOTED - 3] + "...")
