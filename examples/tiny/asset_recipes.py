"""What the asset bank holds: the classes, their drawings and how their sounds are rendered.

Tables only, so that they can be read (and changed) without the machinery of
:mod:`examples.tiny.build_assets`. Left out on purpose: oboe, trombone, cello and bass guitar,
whose sounds at 16 kHz (or drawings at 64 px) a small model cannot tell from a neighbour's.
"""

from __future__ import annotations

from dataclasses import dataclass

GM = "fluidr3-gm"
GS = "fluidr3-gs"
SONIC_PI = "sonic-pi"


@dataclass(frozen=True)
class Phrase:
    """One to four notes of General MIDI presets of FluidR3, keys in ``[low, high]``."""

    programs: tuple[tuple[int, int], ...]
    low: int
    high: int


@dataclass(frozen=True)
class Drums:
    """A regular beat on percussion kits (bank 128), each stroke one of ``keys``."""

    train_kits: tuple[int, ...]
    heldout_kits: tuple[int, ...]
    keys: tuple[int, ...]


@dataclass(frozen=True)
class Effect:
    """A sound-effect preset, ``(soundfont, bank, program)``, one key held."""

    presets: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Samples:
    """Recordings played at several rates; ``strokes`` strings several of them together."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    strokes: bool = False


Recipe = Phrase | Drums | Effect | Samples


@dataclass(frozen=True)
class ClassRecipe:
    """A class: its drawings and the renderings of its sound, taken in turn.

    ``emoji`` are hexadecimal; the first one's flat drawing is held out. ``clipart`` are paths in
    openclipart without suffix; ``heldout_clipart`` is the one held out where there is no emoji.
    ``new_emoji`` are in no emoji set but a newer Noto.
    """

    name: str
    emoji: tuple[str, ...]
    clipart: tuple[str, ...]
    sounds: tuple[Recipe, ...]
    heldout_clipart: str | None = None
    new_emoji: tuple[str, ...] = ()


_MUSIC = "recreation/music/"
_HORSE = "animals/mammals/horses/cavallo_architetto_franc_0"
_DOG = "animals/mammals/dogs/"
_TABLA_HELDOUT = ("tabla_ghe3", "tabla_ghe6", "tabla_ke2", "tabla_na_o", "tabla_tas2", "tabla_tun2")
_TABLA_TRAIN = (
    "tabla_dhec",
    "tabla_ghe1",
    "tabla_ghe2",
    "tabla_ghe4",
    "tabla_ghe5",
    "tabla_ghe7",
    "tabla_ghe8",
    "tabla_ke1",
    "tabla_ke3",
    "tabla_na",
    "tabla_na_s",
    "tabla_re",
    "tabla_tas1",
    "tabla_tas3",
    "tabla_te1",
    "tabla_te2",
    "tabla_tun1",
    "tabla_tun3",
)


def _music(*stems: str) -> tuple[str, ...]:
    return tuple(_MUSIC + stem for stem in stems)


def _phrase(low: int, high: int, *programs: tuple[int, int]) -> tuple[Recipe, ...]:
    return (Phrase(programs, low, high),)


def _effect(*presets: tuple[str, int, int]) -> tuple[Recipe, ...]:
    return (Effect(presets),)


def _samples(*names: str) -> tuple[Recipe, ...]:
    return (Samples(names, names),)


CLASSES: tuple[ClassRecipe, ...] = (
    ClassRecipe(
        "piano",
        ("1f3b9",),
        _music("piano_geraint_luff_01"),
        _phrase(48, 72, (0, 0), (0, 1)),
    ),
    ClassRecipe(
        "guitar",
        (),
        _music("guitar_ganson", "guitar_jarno_vasamaa1", "guitar_profile_philippe__01"),
        _phrase(45, 64, (0, 24), (0, 25)),
        heldout_clipart=_MUSIC + "guitar_profile_philippe__01",
    ),
    ClassRecipe(
        "electric guitar",
        ("1f3b8",),
        _music("electric_guitar_andrea__01r", "guitar_jarno_vasamaa2"),
        _phrase(40, 60, (0, 30), (0, 29)),
    ),
    ClassRecipe("violin", ("1f3bb",), _music("violin_colour_ganson"), _phrase(67, 86, (0, 40))),
    ClassRecipe(
        "harp",
        (),
        _music("harp1_ganson", "harp2_ganson", "harp_mo_01"),
        _phrase(57, 79, (0, 46)),
        heldout_clipart=_MUSIC + "harp1_ganson",
        new_emoji=("1fa89",),
    ),
    ClassRecipe(
        "trumpet",
        ("1f3ba",),
        _music("trumpet_b_flat_colour_ganso", "trumpet_pocket_colour_ganso"),
        _phrase(58, 76, (0, 56)),
    ),
    ClassRecipe("horn", ("1f4ef",), _music("french_horn_ganson"), _phrase(41, 58, (0, 60))),
    ClassRecipe(
        "saxophone", ("1f3b7",), _music("saxophone_jarno_vasamaa_"), _phrase(51, 69, (0, 65))
    ),
    ClassRecipe("flute", ("1fa88",), _music("flute_ganson"), _phrase(74, 91, (0, 73))),
    ClassRecipe("xylophone", (), _music("xylophone_ganson"), _phrase(72, 93, (0, 13))),
    ClassRecipe("accordion", ("1fa97",), (), _phrase(55, 73, (0, 21))),
    ClassRecipe("banjo", ("1fa95",), (), _phrase(55, 74, (0, 105))),
    ClassRecipe(
        "drum",
        ("1f941",),
        _music("drums_jarno_vasamaa_"),
        (Drums((0, 16, 32), (8,), (35, 36, 38, 40, 41, 45, 48)),),
    ),
    ClassRecipe(
        "hand drum",
        ("1fa98",),
        _music("djambf_ganson", "africandrum_benji_park1", "africandrum_benji_park2"),
        (Samples(_TABLA_TRAIN, _TABLA_HELDOUT, strokes=True),),
    ),
    ClassRecipe(
        "maracas", ("1fa87",), _music("maracas_ganson"), (Drums((0, 16, 32), (8,), (70,)),)
    ),
    ClassRecipe(
        "record",
        (),
        _music(
            "45_rpm_record_gerald_g._01",
            "45_rpm_record_gerald_g._02",
            "45_rpm_records_gerald_g._01",
        ),
        _samples("vinyl_backspin", "vinyl_rewind", "vinyl_scratch"),
        heldout_clipart=_MUSIC + "45_rpm_record_gerald_g._02",
    ),
    ClassRecipe(
        "bell",
        ("1f514",),
        (),
        (
            Samples(("perc_bell", "perc_bell2"), ("perc_bell", "perc_bell2")),
            Phrase(((8, 14), (0, 14)), 60, 76),
        ),
    ),
    ClassRecipe("wind chime", ("1f390",), (), _effect((GS, 5, 124))),
    ClassRecipe("telephone", ("260e", "1f4de"), (), _effect((GM, 0, 124), (GS, 1, 124))),
    ClassRecipe("helicopter", ("1f681",), (), _effect((GM, 0, 125))),
    ClassRecipe(
        "dog",
        ("1f415", "1f436"),
        (_DOG + "beagle_copper_ganson", _DOG + "bored_dog_01"),
        _effect((GS, 1, 123)),
    ),
    ClassRecipe(
        "horse",
        ("1f40e", "1f434"),
        tuple(f"{_HORSE}{n}" for n in (1, 2, 5, 6)),
        _effect((GS, 2, 123)),
    ),
    ClassRecipe("bird", ("1f426", "1f99c"), (), _effect((GS, 3, 123), (GM, 0, 123))),
    ClassRecipe("crow", ("1f426-200d-2b1b",), ("animals/birds/crow_01",), _samples("misc_crow")),
    ClassRecipe("car", ("1f697", "1f699"), (), _effect((GS, 1, 125))),
    ClassRecipe("train", ("1f682", "1f686"), (), _effect((GS, 6, 125))),
    ClassRecipe("airplane", ("2708", "1f6e9"), (), _effect((GS, 7, 125))),
    ClassRecipe("door", ("1f6aa",), (), _effect((GS, 2, 124), (GS, 3, 124))),
    ClassRecipe("rain", ("1f327",), (), _effect((GS, 1, 122))),
    ClassRecipe("lightning", ("26a1",), (), _effect((GS, 2, 122))),
    ClassRecipe("wave", ("1f30a",), (), _effect((GM, 0, 122))),
    ClassRecipe("heart", ("2764", "1f499"), (), _effect((GS, 4, 126))),
    ClassRecipe("police car", ("1f693", "1f694"), (), _effect((GS, 5, 125))),
    ClassRecipe("ufo", ("1f6f8",), (), _effect((GS, 8, 125))),
    ClassRecipe("explosion", ("1f4a5",), (), _effect((GS, 3, 127))),
    ClassRecipe("footprints", ("1f463",), (), _effect((GS, 5, 126))),
    ClassRecipe("clapping hands", ("1f44f",), (), _effect((GM, 0, 126))),
    ClassRecipe("bubbles", ("1fae7",), (), _effect((GS, 5, 122))),
    ClassRecipe("laugh", ("1f602", "1f923"), (), _effect((GS, 1, 126))),
    ClassRecipe("scream", ("1f631",), (), _effect((GS, 2, 126))),
    ClassRecipe("wind", ("1f32c",), (), _effect((GS, 3, 122))),
)

IMAGE_DISTRACTORS: tuple[tuple[str, str], ...] = (
    ("apple", "1f34e"),
    ("banana", "1f34c"),
    ("tree", "1f333"),
    ("sunflower", "1f33b"),
    ("house", "1f3e0"),
    ("star", "2b50"),
    ("pizza", "1f355"),
    ("fish", "1f41f"),
    ("moon", "1f319"),
    ("book", "1f4d6"),
    ("cake", "1f382"),
    ("football", "26bd"),
    ("crown", "1f451"),
    ("key", "1f511"),
    ("cherries", "1f352"),
    ("snail", "1f40c"),
    ("christmas tree", "1f384"),
    ("teddy bear", "1f9f8"),
    ("grapes", "1f347"),
    ("turtle", "1f422"),
    ("cactus", "1f335"),
    ("mushroom", "1f344"),
    ("top hat", "1f3a9"),
    ("chair", "1fa91"),
)

SOUND_DISTRACTORS: tuple[tuple[str, Phrase], ...] = (
    ("harmonica", Phrase(((0, 22),), 62, 76)),
    ("bagpipe", Phrase(((0, 109),), 55, 69)),
    ("sitar", Phrase(((0, 104),), 50, 64)),
    ("church organ", Phrase(((0, 19),), 45, 60)),
    ("choir", Phrase(((0, 52),), 55, 69)),
    ("steel drums", Phrase(((0, 114),), 60, 74)),
    ("kalimba", Phrase(((0, 108),), 62, 76)),
    ("harpsichord", Phrase(((0, 6),), 52, 66)),
    ("saw lead", Phrase(((0, 81),), 60, 74)),
    ("slap bass", Phrase(((0, 36),), 28, 42)),
)
