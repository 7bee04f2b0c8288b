"""Captions with known spans: templates, words for classes, and the text's vocabulary."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mmattrib.backbones.tiny.tokenizer import MAX_TOKENS, tokenise
from mmattrib.datasets.scenes.bank import Bank

SPECIAL: Final = ("<pad>", "<cls>", "<unk>")

TEMPLATES: Final = (
    "{}",
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a recording of {}",
    "a scene with {}",
    "this is {}",
    "here we have {}",
    "look at {}",
    "listen to {}",
    "we can see {}",
    "we can hear {}",
    "you see and hear {}",
)
PLACES: Final = (
    "",
    "",
    "",
    "in the park",
    "in the street",
    "in a quiet room",
    "on the grass",
    "at night",
    "in the morning",
    "by the river",
    "on a table",
    "in the old town",
    "at home",
)
ADJECTIVES: Final = (
    "old",
    "new",
    "big",
    "small",
    "little",
    "red",
    "blue",
    "shiny",
    "strange",
    "nice",
    "loud",
    "quiet",
    "distant",
    "colourful",
)
PAIR_SEPARATORS: Final = ("and", "and", "with", "near", "next to", "beside")
#: Stands for the mentions of a caption that has none left.
NOTHING: Final = "something"


@dataclass(frozen=True)
class Mention:
    """A class named in a caption: `span` is (start, end) in characters, end exclusive."""

    class_name: str
    span: tuple[int, int]

    @property
    def region(self) -> tuple[int, int]:
        """Where it stands: its span."""
        return self.span


@dataclass(frozen=True)
class Phrase:
    """One mention as it will be written: article, adjective (or ""), words."""

    class_name: str
    article: str
    adjective: str
    words: str


@dataclass(frozen=True)
class CaptionPlan:
    """Everything drawn for a caption, so that it can be written again without one mention."""

    template: str
    place: str
    separator: str
    phrases: tuple[Phrase, ...]


def draw_caption(bank: Bank, classes: Sequence[str], rng: random.Random) -> CaptionPlan:
    """Draws wording for classes in their order; at most MAX_TOKENS - 1 tokens when written."""
    phrases = []
    for name in classes:
        adjective = rng.choice(ADJECTIVES) if rng.random() < 0.35 else ""
        article = rng.choice(("a", "the"))
        if article == "a" and not bank.takes_article(name):
            article = ""
        phrases.append(Phrase(name, article, adjective, rng.choice(bank.words_of(name))))
    template, place = rng.choice(TEMPLATES), rng.choice(PLACES)
    plan = CaptionPlan(template, place, rng.choice(PAIR_SEPARATORS), tuple(phrases))
    while len(tokenise(write_caption(plan)[0])) > MAX_TOKENS - 1:
        plan = _shorter(plan)
    return plan


def write_caption(plan: CaptionPlan, skip: int | None = None) -> tuple[str, tuple[Mention, ...]]:
    """Text and mentions of a plan, without phrase `skip` if one is given."""
    phrases = [p for k, p in enumerate(plan.phrases) if k != skip]
    text = plan.template.split("{}")[0]
    mentions: list[Mention] = []
    if not phrases:
        text += NOTHING
    for k, phrase in enumerate(phrases):
        if k:
            last = k == len(phrases) - 1
            joint = "and" if len(phrases) > 2 else plan.separator
            text += f" {joint} " if last else ", "
        text += "".join(f"{w} " for w in (_article(phrase), phrase.adjective) if w)
        mentions.append(Mention(phrase.class_name, (len(text), len(text) + len(phrase.words))))
        text += phrase.words
    return (f"{text} {plan.place}" if plan.place else text), tuple(mentions)


def vocabulary(bank: Bank | None = None) -> tuple[str, ...]:
    """All words that a bank's captions are made of, sorted, after <pad>, <cls> and <unk>.

    Args:
        bank: whose classes to name; the shipped one if None.
    """
    bank = bank or Bank.shipped()
    texts = [*TEMPLATES, *PLACES, *ADJECTIVES, *PAIR_SEPARATORS, NOTHING, "a an the and , ."]
    for name in bank.class_names:
        texts += [name, *bank.words_of(name)]
    words = {word for text in texts for word, _ in tokenise(text.replace("{}", " "))}
    return (*SPECIAL, *sorted(words))


def _article(phrase: Phrase) -> str:
    following = phrase.adjective or phrase.words
    vowel = following[0] in "aeiou" and following != "ufo"
    return "an" if phrase.article == "a" and vowel else phrase.article


def _shorter(plan: CaptionPlan) -> CaptionPlan:
    """Drops what carries no class: the place, then adjectives, then the template."""
    if plan.place:
        return CaptionPlan(plan.template, "", plan.separator, plan.phrases)
    if any(p.adjective for p in plan.phrases):
        bare = tuple(Phrase(p.class_name, p.article, "", p.words) for p in plan.phrases)
        return CaptionPlan(plan.template, "", plan.separator, bare)
    if plan.template != "{}":
        return CaptionPlan("{}", "", plan.separator, plan.phrases)
    return CaptionPlan("{}", "", "and", plan.phrases[:-1])
