"""Which stamps of Tux Paint make up the second world: tables only.

Chosen by looking at the photographs and at the sounds' spectrograms. Left out on purpose: silent
sounds (giraffe, iguana, rhea, wombat), spoken ones (lunar lander, faces, dreidel), sounds that two
stamps share (beaver and badger, chamois and ram), and what cannot be told from a neighbour at
64 px (cello beside violin, dromedary's recording beside camel's).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stamp:
    """A thing: its photographs and recordings, as paths below the stamps without suffix.

    Photographs without held-out ones serve both splits. A recording in both tuples is cut in two
    where it is long enough, but not a ``whole`` one, whose beginning and end sound unlike.
    ``words`` are what captions call it, if not its name alone.
    """

    name: str
    photographs: tuple[str, ...] = ()
    recordings: tuple[str, ...] = ()
    heldout_photographs: tuple[str, ...] = ()
    heldout_recordings: tuple[str, ...] = ()
    whole: bool = False
    words: tuple[str, ...] = ()


def _thing(
    name: str,
    path: str,
    *more: str,
    heldout: str | None = None,
    sounds: tuple[str, ...] = (),
    whole: bool = False,
    words: tuple[str, ...] = (),
) -> Stamp:
    """A stamp whose photograph and recording share ``path``; others lie in the same folder."""
    folder = path.rpartition("/")[0]
    recordings = (path, *(f"{folder}/{stem}" for stem in sounds))
    return Stamp(
        name,
        photographs=(path, *(f"{folder}/{stem}" for stem in more)),
        recordings=recordings,
        heldout_photographs=(f"{folder}/{heldout}",) if heldout else (),
        heldout_recordings=recordings,
        whole=whole,
        words=words,
    )


_BIRDS = "animals/birds/"
_MAMMALS = "animals/mammals/"
_MUSIC = "hobbies/music/"

CLASSES: tuple[Stamp, ...] = (
    _thing("frog", "animals/amphibians/frog"),
    _thing("crow", _BIRDS + "crow"),
    _thing("duck", _BIRDS + "duck", heldout="drake"),
    _thing("goose", _BIRDS + "gander"),
    _thing("hen", _BIRDS + "hen", heldout="chicken_profile"),
    _thing("owl", _BIRDS + "owl"),
    _thing("penguin", _BIRDS + "penguin", "little-penguin", heldout="magellanic_penguin"),
    _thing("rooster", _BIRDS + "rooster"),
    _thing("seagull", _BIRDS + "seagull", words=("seagull", "gull")),
    _thing("toucan", _BIRDS + "tucan"),
    _thing("turkey", _BIRDS + "turkey"),
    _thing("bee", "animals/insects/bee"),
    _thing("grasshopper", "animals/insects/grasshopper"),
    _thing("chimpanzee", _MAMMALS + "apes/chimp", whole=True, words=("chimpanzee", "chimp")),
    _thing("dolphin", _MAMMALS + "aquatic/dolphin", whole=True),
    _thing("orca", _MAMMALS + "aquatic/orca"),
    _thing("sea lion", _MAMMALS + "aquatic/sea_lion"),
    _thing("whale", _MAMMALS + "aquatic/whale"),
    _thing("bear", _MAMMALS + "bears/bear", heldout="european-bear"),
    _thing("cow", _MAMMALS + "bovines/cow", "cow_white", sounds=("cow_white",)),
    _thing("sheep", _MAMMALS + "bovines/sheep", "sheep_lamb", heldout="ram"),
    _thing("goat", _MAMMALS + "bovines/goat", heldout="mountaingoat"),
    _thing("camel", _MAMMALS + "camel/camel", heldout="dromedary"),
    _thing("tiger", _MAMMALS + "cats/tiger", heldout="tiger_sumatran"),
    _thing("dog", _MAMMALS + "dogs/dog", words=("dog", "hound")),
    _thing("elephant", _MAMMALS + "elephant"),
    _thing("donkey", _MAMMALS + "equines/donkey", heldout="donkey_eating"),
    _thing("horse", _MAMMALS + "equines/horse", whole=True),
    _thing("zebra", _MAMMALS + "equines/zebra"),
    _thing("pig", _MAMMALS + "pig", "pig_golden2", heldout="pig_golden", sounds=("pig_golden",)),
    _thing("rabbit", _MAMMALS + "rodents/rabbit", heldout="rabbit-2"),
    _thing("koala", "animals/marsupials/koala"),
    _thing("camera", "hobbies/camera_35mm"),
    _thing("drum", _MUSIC + "percussion/drum_tomtom_floor"),
    _thing("violin", _MUSIC + "string/violin", whole=True),
    _thing("toilet", "household/toilet", whole=True),
    _thing("saw", "household/tools/saw"),
    _thing("cat", "seasonal/halloween/blackcat"),
    _thing(
        "fire truck",
        "vehicles/emergency/firetruck",
        whole=True,
        words=("fire truck", "fire engine"),
    ),
    _thing("submarine", "vehicles/ship/cartoon/bathyscape"),
)


def _photographs(*paths: str, heldout: bool = False) -> tuple[Stamp, ...]:
    return tuple(
        Stamp(
            path.rpartition("/")[2].lower(),
            photographs=() if heldout else (path,),
            heldout_photographs=(path,) if heldout else (),
        )
        for path in paths
    )


def _recordings(*paths: str, heldout: bool = False) -> tuple[Stamp, ...]:
    return tuple(
        Stamp(
            path.rpartition("/")[2].lower(),
            recordings=() if heldout else (path,),
            heldout_recordings=(path,) if heldout else (),
        )
        for path in paths
    )


IMAGE_DISTRACTORS: tuple[Stamp, ...] = (
    *_photographs(
        "sports/basketball",
        "space/planets/6_saturn",
        "plants/flowers/rose",
        "plants/trees/tree336",
        "animals/fish/clownfish",
        "household/Lightbulb",
        "sports/trophy_cup",
        "clothes/hats/tophat",
        "animals/fish/seahorse",
        "food/fruit/pineapple",
        "plants/mushrooms/cep",
        "hobbies/binoculars",
        "household/tools/toolbox",
        "food/fruit/apple_red",
        "clothes/t_shirt",
        "household/kettle",
    ),
    *_photographs(
        "sports/soccer",
        "plants/flowers/daffodil",
        "household/garbagecan",
        "vehicles/flight/balloon360",
        "food/vegetables/broccoli",
        "household/dishes/teapot",
        "sports/tennis_ball",
        "clothes/hats/sombrero",
        heldout=True,
    ),
)

SOUND_DISTRACTORS: tuple[Stamp, ...] = (
    *_recordings(
        "animals/insects/mosquito",
        _MAMMALS + "ferret",
        _MAMMALS + "dogs/fox",
        _MAMMALS + "hippopotamus",
        _MUSIC + "wind/bassoon",
        _MUSIC + "percussion/drumkit",
        "household/tools/hammer",
        "household/vacuum_cleaner",
        "naturalforces/lightningbolt",
        _BIRDS + "lark",
    ),
    *_recordings(
        "military/final-roll-call",
        "town/flags/checkeredflag",
        "household/Washing-machine",
        _BIRDS + "blackbird",
        _MAMMALS + "rodents/mouse",
        heldout=True,
    ),
)
