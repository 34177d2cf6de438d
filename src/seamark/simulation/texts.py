"""What can be shown: prompts, and responses whose sentences show how good they are, in what tone, and what else about them differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Things:
    """All that can be shown, by prompt."""

    prompts: list[str | None]
    prompt_ids: list[str]
    pool: NDArray[np.int64]  # (n_prompts, n_per_prompt) response rows
    ids: list[str]
    texts: list[str | None]
    origin: NDArray[np.int64]  # row of the response that this one copies, its own where it copies none
    quality: Array
    tone: Array  # (n, 2)
    characters: Array
    traits: Array  # (n, templates) share of the sentences from each template; no columns where there is no text


def standardise(x: Array) -> Array:
    """Columns with mean 0 and standard deviation 1; a constant column becomes 0."""
    sd = x.std(0)
    return (x - x.mean(0)) / np.where(sd > 0, sd, 1)


def properties(things: Things, k: int, unexplained: float, rng: np.random.Generator) -> Array:
    """(n, k) properties of the responses, each of mean 0 and standard deviation 1, for people to differ about.

    Texts show them in which sentences they use, but for the share `unexplained` of the variance; they are uncorrelated with
    quality, tone and length. Each is a draw of its own; since there are only so many sentences, two of them may still correlate,
    by 0.15 or so. A copy has those of its origin.
    """
    written = np.flatnonzero(things.origin == np.arange(len(things.origin)))
    hidden = rng.normal(size=(len(written), k))
    if not things.traits.shape[1]:
        return standardise(hidden)[np.searchsorted(written, things.origin)]
    known = np.column_stack([np.ones(len(written)), things.quality[written], things.tone[written], np.log(things.characters[written])])
    shown = things.traits[written] @ rng.normal(size=(things.traits.shape[1], k))
    if len(written) > 2 * known.shape[1]:  # with fewer responses nothing would be left of them
        shown -= known @ np.linalg.lstsq(known, shown, rcond=None)[0]
    mixed = np.sqrt(1 - unexplained) * standardise(shown) + np.sqrt(unexplained) * standardise(hidden)
    return standardise(mixed)[np.searchsorted(written, things.origin)]


def entries(settings: Mapping[str, Any], rng: np.random.Generator) -> Things:
    """Leaderboard entries without text."""
    n, n_prompts = settings["n_responses"], settings["n_prompts"]
    return Things(
        prompts=[None] * n_prompts,
        prompt_ids=[f"prompt-{i:04d}" for i in range(n_prompts)],
        pool=np.tile(np.arange(n), (n_prompts, 1)),
        ids=[f"entry-{i:03d}" for i in range(n)],
        texts=[None] * n,
        origin=np.arange(n),
        quality=rng.normal(size=n),
        tone=rng.normal(size=(n, 2)),
        characters=np.full(n, 500.0),
        traits=np.zeros((n, 0)),
    )


def write(settings: Mapping[str, Any], rng: np.random.Generator) -> Things:
    """Prompts, and responses whose sentences show their quality and tone, in as many sentences as chance says."""
    n_prompts, per_prompt = settings["n_prompts"], settings["n_responses"]
    n_copies = min(round(settings["leak"] * n_prompts), n_prompts // 2)
    n_written = n_prompts - n_copies
    combinations = len(_TOPICS) * len(_SITUATIONS) * len(_QUESTIONS)
    if n_written > combinations:
        raise InvalidSetting("n_prompts", n_prompts, f"There are {combinations:,} prompts to choose from.")
    prompts: list[str | None] = []
    nouns: list[tuple[str, ...]] = []
    for pick in rng.choice(combinations, n_written, replace=False).tolist():
        pick, question = divmod(pick, len(_QUESTIONS))
        topic, situation = divmod(pick, len(_SITUATIONS))
        task, *things = _TOPICS[topic].split("|")
        prompts.append(_QUESTIONS[question].format(task=task, situation=_SITUATIONS[situation]))
        nouns.append(tuple(things))
    n = n_written * per_prompt
    wish = rng.normal(size=n)
    rho = settings["length_value_correlation"]
    long = rho * wish + np.sqrt(1 - rho**2) * rng.normal(size=n)
    # 4 to 12 sentences by the rank of `long`, so that the lengths are evenly spread
    n_sentences = 4 + (np.argsort(np.argsort(long)) * 9) // n
    lean = rng.normal(size=(n, 2))
    texts: list[str | None] = []
    quality, tone, traits = np.zeros(n), np.zeros((n, 2)), np.zeros((n, len(_TEMPLATES)))
    seen: set[str] = set()
    for i in range(n):
        while True:
            text, quality[i], tone[i], traits[i] = _response(
                nouns[i // per_prompt], int(n_sentences[i]), wish[i], lean[i], settings["groups"], rng
            )
            if text not in seen:
                break
        seen.add(text)
        texts.append(text)
    pool = np.arange(n).reshape(n_written, per_prompt)
    copied = rng.choice(n_written, n_copies, replace=False)
    prompts += [f"{rng.choice(_OPENERS)} {prompts[p]}" for p in copied]
    origin = np.concatenate([np.arange(n), pool[copied].ravel()]).astype(np.int64)
    pool = np.vstack([pool, n + np.arange(n_copies * per_prompt).reshape(n_copies, per_prompt)])
    texts = [texts[i] for i in origin]
    return Things(
        prompts=prompts,
        prompt_ids=[f"prompt-{i:04d}" for i in range(n_prompts)],
        pool=pool,
        ids=[f"response-{p:04d}-{k}" for p in range(n_prompts) for k in range(per_prompt)],
        texts=texts,
        origin=origin,
        quality=quality[origin],
        tone=tone[origin],
        characters=np.array([len(t or "") for t in texts], dtype=np.float64),
        traits=traits[origin],
    )


def _response(
    nouns: tuple[str, ...], n_sentences: int, wish: float, lean: Array, groups: int, rng: np.random.Generator
) -> tuple[str, float, Array, Array]:
    """A text, and what its sentences show: quality and tone (balance of good and evasive, of warm and brisk, ...), and traits."""
    axes = 0 if groups == 1 else 1 if groups == 2 else 2
    n_tone = round(n_sentences * (0.25, 0.25, 0.4)[axes])
    n_plain = n_sentences - n_tone
    # a wish of +-2 sd is all good or all evasive
    n_good = rng.binomial(n_plain, np.clip(0.5 + wish / 4, 0.02, 0.98))
    sentences = _some(_GOOD, n_good, rng) + _some(_EVASIVE, n_plain - n_good, rng)
    tone = np.zeros(2)
    for k in range(n_tone):
        axis = k % max(axes, 1)
        high = rng.random() < np.clip(0.5 + lean[axis] / 4, 0.02, 0.98)
        sentences += _some(_TONES[axis][0 if high else 1], 1, rng)
        tone[axis] += (1.0 if high else -1.0) / n_tone
    if axes == 0:  # with one group no one minds the tone; it is still there
        tone[:] = 0
    traits = np.bincount([_TEMPLATES[s] for s in sentences], minlength=len(_TEMPLATES)) / n_sentences
    rng.shuffle(sentences)
    filled = [s.format(a=nouns[rng.integers(len(nouns))], b=_MATERIALS[rng.integers(len(_MATERIALS))]) for s in sentences]
    return " ".join(filled), (2 * n_good - n_plain) / n_sentences, tone, traits


def _some(templates: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """n of the templates, none twice before all have been used."""
    picked: list[str] = []
    while len(picked) < n:
        picked += [templates[int(i)] for i in rng.permutation(len(templates))]
    return picked[:n]


# ------------------------------------------------------------------------------------ words

_QUESTIONS = (
    "How do I {task} {situation}?",
    "What is the best way to {task} {situation}?",
    "I want to {task} {situation}. Where should I begin?",
    "Can you explain how to {task} {situation}?",
    "What should I know before I {task} {situation}?",
    "Please help me to {task} {situation}.",
)
_OPENERS = ("Hello.", "Quick question:", "Hi there,", "One more thing:", "Sorry to ask again.")
_SITUATIONS = (
    "for the first time",
    "with very little time",
    "on a small budget",
    "without special tools",
    "together with two children",
    "in a small flat",
    "before the weekend",
    "after a failed attempt",
    "with a bad back",
    "in cold weather",
    "in a hot climate",
    "for an elderly neighbour",
    "with a group of beginners",
    "when nobody can help",
    "in one afternoon",
    "while travelling",
    "without making a mess",
    "so that it lasts",
    "as a present",
    "on a busy weekday",
)
_TOPICS = (
    "repot a houseplant|the roots|the soil|the pot|the drainage",
    "bake sourdough bread|the starter|the dough|the oven|the crust",
    "fix a flat bicycle tyre|the inner tube|the rim|the valve|the pump",
    "write a cover letter|the opening line|the job advert|the closing line|the tone",
    "train for a long race|the weekly distance|the shoes|the rest days|the pace",
    "paint a wooden fence|the old paint|the brush|the primer|the wood",
    "learn basic Spanish|the verbs|the vocabulary|the pronunciation|the exercises",
    "plan a vegetable garden|the seedlings|the beds|the watering|the compost",
    "repair a leaking tap|the washer|the valve seat|the water supply|the handle",
    "prepare a short speech|the first sentence|the notes|the pauses|the audience",
    "adopt an old dog|the vet|the sleeping place|the food|the walks",
    "sew a simple curtain|the fabric|the hem|the thread|the rail",
    "set up a home network|the router|the password|the cables|the signal",
    "cook a vegetable curry|the spices|the onions|the rice|the sauce",
    "read a balance sheet|the assets|the debts|the footnotes|the totals",
    "build a birdhouse|the boards|the entrance hole|the nails|the roof",
    "organise old photographs|the albums|the scanner|the dates|the boxes",
    "start a monthly budget|the fixed costs|the receipts|the savings|the spreadsheet",
    "clean a cast iron pan|the rust|the oil|the heat|the surface",
    "take photographs at night|the tripod|the exposure|the lens|the focus",
    "insulate an attic|the beams|the gaps|the vapour barrier|the hatch",
    "teach a child to swim|the water|the breathing|the float|the first lesson",
    "brew good coffee|the beans|the grinder|the water temperature|the filter",
    "hang a heavy mirror|the wall|the anchors|the drill|the level",
    "keep bees|the hive|the queen|the frames|the smoker",
    "choose a used car|the engine|the papers|the tyres|the test drive",
    "grow tomatoes|the seedlings|the stakes|the leaves|the sunlight",
    "sharpen kitchen knives|the stone|the angle|the edge|the burr",
    "write a will|the witnesses|the property|the signature|the executor",
    "make a podcast|the microphone|the script|the room|the editing",
)
_MATERIALS = ("a notebook", "a damp cloth", "a good lamp", "an old towel", "a cheap timer", "a sharp pencil", "a clean table", "a friend")

_GOOD = (
    "First check {a} carefully, because a small problem there spoils every later step.",
    "Measure {a} twice and write the exact numbers down before you change anything.",
    "For example, set aside twenty minutes for {a} and keep {b} within reach.",
    "The most common mistake is to rush {a}, so test it in a hidden spot first.",
    "Work in this order: prepare {a}, test it once, then correct what you see.",
    "A reliable sign that {a} is ready is that nothing moves when you press gently.",
    "If {a} turns out wrong, undo the last step and repeat it more slowly.",
    "Compare {a} with the maker's instructions, since the safe limits are printed there.",
    "You need three items for this: {b}, clean hands and a clear view of {a}.",
    "Protect {a} from damage by covering it before the next stage begins.",
    "The reason this works is simple: {a} needs time to settle before any strain.",
    "Verify the result after one day, and adjust {a} by a small amount if needed.",
    "Use {b} to mark where {a} should end up, then follow the mark exactly.",
    "Divide the work on {a} into short stages and confirm each one before going on.",
)
_EVASIVE = (
    "It all depends, and nobody can really say very much about {a} in general.",
    "You could just look up {a} somewhere else, there must be some page about it.",
    "Perhaps {a} matters or perhaps not, opinions differ and I have none of my own.",
    "Whatever you do about {a} is probably fine, so there is no point in details.",
    "Many people have had some sort of experience with {a} or something like it.",
    "I am not sure what you mean by {a}, but things usually work out somehow.",
    "There are various ways to handle {a}, and all of them are more or less the same.",
    "Anyway, {a} is a big subject and this is not the place to go into it.",
    "Maybe ask somebody who knows about {a}, since it is hard to tell from here.",
    "As everyone knows, {a} is what it is, and that is basically all there is to it.",
    "Things like {b} or {a} could be involved, or possibly something quite different.",
    "Just try anything with {a} and see what happens, it hardly makes a difference.",
    "Generally speaking, stuff such as {a} is kind of complicated and kind of not.",
    "Some say one thing about {a} and some say another, so who can really tell.",
)
_TONES = (
    (
        (
            "You are doing wonderfully already, and {a} will feel friendlier with every try.",
            "Be kind to yourself while you learn about {a}, everyone starts somewhere.",
            "What a lovely project, enjoy the quiet moments you get to spend with {a}.",
            "Take a deep breath and trust your heart, {a} forgives a gentle beginner.",
        ),
        (
            "No fuss: deal with {a} now, get it done and move straight to the next job.",
            "Skip the feelings, {a} is a task like any other and takes plain discipline.",
            "Keep it short, finish {a} today and waste no further thought on the matter.",
            "Bottom line: {a} is work, so stop stalling and get on with it right away.",
        ),
    ),
    (
        (
            "In technical terms the tolerance of {a} follows from its load and its geometry.",
            "The governing parameter is the ratio of {a} to its nominal specification.",
            "Formally, {a} is a system with one input, one output and a known delay.",
            "The underlying mechanism for {a} is described by a standard reference table.",
        ),
        (
            "My grandmother always told a story about {a} when we sat in her warm kitchen.",
            "Back in our village {a} was something the whole street would gather around.",
            "It reminds me of a rainy Sunday when {a} brought the entire family together.",
            "There is an old saying that {a} brings good luck to those who are patient.",
        ),
    ),
)

_TEMPLATES = {sentence: i for i, sentence in enumerate((*_GOOD, *_EVASIVE, *(s for axis in _TONES for end in axis for s in end)))}
"""Every sentence there is, and its column of the traits."""
