"""Words out of tokens, in every script: clusters are whole, and no word is a joiner."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_methods import quick

import mmattrib as mm
from mmattrib.backbones.tiny.tokenizer import tokenise
from mmattrib.errors import EncoderError, TrustWarning
from mmattrib.io import load_text
from mmattrib.models.words import words_of_tokens

Spans = list[tuple[int, int]]


def characters(text: str) -> Spans:
    """One token per character."""
    return [(place, place + 1) for place in range(len(text))]


def pieces(text: str, cuts: str) -> Spans:
    """Tokens as ``cuts`` writes them, between bars."""
    spans, at = [], 0
    for piece in cuts.split("|"):
        at = text.index(piece, at)
        spans.append((at, at + len(piece)))
        at += len(piece)
    return spans


def words(text: str, spans: Spans) -> list[str]:
    found, _ = words_of_tokens(text, spans)
    assert all(text[word.start : word.end] == word.text for word in found)
    return [word.text for word in found]


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
SCOTLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
ONE_CLUSTER = {
    "family": FAMILY,
    "skin tone": "👍🏽",
    "flag": "🇩🇪",
    "flag of tags": SCOTLAND,
    "keycap": "1\ufe0f\u20e3",
    "heart with a variation selector": "❤\ufe0f",
    "accent": "e\u0301",
    "three accents": "a\u0308\u0323\u0304",
    "jamo": "\u1112\u1161\u11ab",
    "devanagari conjunct": "क्ष",
    "thai vowel and tone": "ที่",
    "hebrew points": "שָׁ",
    "a mark without a letter": "\u0308",
    "a mark on a space": " \u0308",
}


@pytest.mark.parametrize("case", ONE_CLUSTER)
def test_a_cluster_cut_into_characters_is_one_word(case: str) -> None:
    cluster = ONE_CLUSTER[case]
    text = f"see {cluster} there"
    found, index = words_of_tokens(text, characters(text))
    assert [word.text.strip() for word in found] == ["see", cluster.strip(), "there"]
    inside = [index[place] for place, char in enumerate(text) if char in cluster.strip()]
    assert inside == [1] * len(inside) or case.startswith(("accent", "three", "jamo"))


@pytest.mark.parametrize(
    ("text", "cuts", "expected"),
    [
        ("犬が吠える", "犬|が|吠|える", ["犬", "が", "吠", "える"]),
        ("一只黑狗", "一只|黑|狗", ["一只", "黑", "狗"]),
        ("สุนัขสีดำ", "สุนัข|สีดำ", ["สุนัข", "สีดำ"]),
        ("ໝາດຳ", "ໝາ|ດຳ", ["ໝາ", "ດຳ"]),
        ("ឆ្កែខ្មៅ", "ឆ្កែ|ខ្មៅ", ["ឆ្កែ", "ខ្មៅ"]),
        ("ခွေးနက်", "ခွေး|နက်", ["ခွေး", "နက်"]),
        ("コーヒー", "コー|ヒー", ["コー", "ヒー"]),
        ("검은 개가", "검|은|개|가", ["검은", "개가"]),
        ("हिन्दी में", "हि|न्|दी|में", ["हिन्दी", "में"]),
        ("كلب أسود!", "كل|ب|أس|ود|!", ["كلب", "أسود", "!"]),
        ("می\u200cخواهم", "می|خواهم", ["می\u200cخواهم"]),
        ("iPhone手机", "i|Phone|手|机", ["iPhone", "手", "机"]),
        ("a狗b", "a|狗|b", ["a", "狗", "b"]),
        ("手机，好。", "手|机|，|好|。", ["手", "机", "，", "好", "。"]),
        ("soft\xadware", "soft|\xad|ware", ["soft\xadware"]),
        ("soft\xadware", "soft|ware", ["soft\xadware"]),
        ("one\u200btwo", "one|\u200b|two", ["one", "two"]),
        ("one\u200btwo", "one|\u200btwo", ["one", "two"]),
        ("\ufeffdog\u200f.", "\ufeff|dog|\u200f|.", ["dog", "."]),
        ("the dog's well-known", "the|dog|'s|well|-|known", ["the", "dog's", "well-known"]),
        (
            "1\ufe0f\u20e32\ufe0f\u20e3",
            "1|\ufe0f\u20e3|2|\ufe0f\u20e3",
            ["1\ufe0f\u20e3", "2\ufe0f\u20e3"],
        ),
        ("🇩🇪🇫🇷", "🇩|🇪|🇫|🇷", ["🇩🇪", "🇫🇷"]),
    ],
)
def test_words_in_many_scripts(text: str, cuts: str, expected: list[str]) -> None:
    assert words(text, pieces(text, cuts)) == expected


def test_bytes_of_one_han_character_are_one_word() -> None:
    found, index = words_of_tokens("黑狗", [(0, 1), (0, 1), (1, 2), (1, 2), (1, 2)])
    assert [word.text for word in found] == ["黑", "狗"]
    assert index == [0, 0, 1, 1, 1]


def test_an_invisible_piece_counts_to_the_word_before_it_or_to_none() -> None:
    text = "\u200edog\u200e cat"
    assert words_of_tokens(text, [(0, 1), (1, 4), (4, 5), (6, 9)])[1] == [-1, 0, 0, 1]
    assert words_of_tokens("dog  ", [(0, 3), (3, 5), (5, 5)])[1] == [0, -1, -1]


def test_a_span_outside_of_its_caption_is_an_error() -> None:
    with pytest.raises(EncoderError, match="outside of 'dog'"):
        words_of_tokens("dog", [(0, 4)])


TINY = mm.load_backbone("tiny")
ALPHABET = (
    "ab1'-. \t\u200b\u200d\xad\u0308\u0301é犬がไที่🐶👩🏽🇩🇪\ufe0f\u20e3कष्ि\u1112\u1161\u11ab\u200fשָ"
)


@settings(max_examples=200, deadline=None)
@given(st.text(ALPHABET, min_size=1, max_size=16), st.data())
def test_no_cutting_of_any_text_splits_a_cluster_or_makes_an_invisible_word(
    text: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)) | {0, len(text)})
    found, index = words_of_tokens(text, list(pairwise(cuts)))
    ends = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    assert all({word.start, word.end} <= ends for word in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(regex.search(r"[^\s\p{Default_Ignorable_Code_Point}]", word.text) for word in found)
    assert [place for place in index if place >= 0] == sorted(p for p in index if p >= 0)
    assert set(range(len(found))) <= set(index)
    covered = {place for word in found for place in range(word.start, word.end)}
    visible = {
        place
        for place, char in enumerate(text)
        if not char.isspace() and not regex.match(r"\p{Default_Ignorable_Code_Point}", char)
    }
    assert visible <= covered


# ------------------------------------------------------------------- through a whole explanation


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
@pytest.mark.parametrize("caption", ["a naïve dog", "Ångström 한국어 dog", "ế dog"])
def test_both_forms_of_unicode_give_the_same_words_and_scores(caption: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    forms = [unicodedata.normalize(form, caption) for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    first, second = (
        mm.attribute(TINY, image=picture, text=form, method="m2ib", **quick("m2ib"))
        for form in forms
    )
    assert first["text"].words == second["text"].words
    assert "".join(word.text for word in first["text"].words) == forms[0].replace(" ", "")
    assert np.ptp(first["text"].scores) > 0
    np.testing.assert_array_equal(first["text"].scores, second["text"].scores)
    np.testing.assert_array_equal(first["image"].scores, second["image"].scores)


def test_a_caption_without_spaces_has_several_words() -> None:
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    for caption in ("一只黑狗", "犬が吠える", "ภาษาไทย"):
        with pytest.warns(TrustWarning, match="does not know"):
            ex = mm.attribute(TINY, image=picture, text=f"dog {caption}", method="random")
        dog, *found = ex["text"].words
        assert dog.text == "dog"
        assert len(found) > 2
        assert "".join(word.text for word in found) == load_text(caption).text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The dog's 2 cats, re-done!", ["the", "dog's", "2", "cats", ",", "re", "-", "done", "!"]),
        ("犬がABC", ["犬", "が", "abc"]),
        ("हिन्दी שָׁלוֹם", ["हिन्दी", "שָׁלוֹם"]),
        (f"{FAMILY}👍🏽", [FAMILY, "👍🏽"]),
    ],
)
def test_tokens_of_tiny_are_words_or_whole_characters(text: str, tokens: list[str]) -> None:
    assert [word for word, _ in tokenise(text)] == tokens
