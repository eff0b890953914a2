"""Kind and class of furniture by its name in the catalogue. The kind determines where a piece is placed."""

from __future__ import annotations

import re

from dataset.synthetic.models import Item

OUTDOORS = ("Exterior", "Vehicles", "Characters", "Staircases")
# Items that rooms do not use, or that combine several classes which their materials do not distinguish. The pattern is
# searched for in "name, tags", in lower case.
UNUSED = (
    r"plug|switch|antenna|dimmer|intercom|detector|cctv|scpts|railing|fence|elevator|garage|container|lock\b|emergency"
    r"|\bbaby|\bchildren|crib|changing|doll|\btoy|potty|urinal|bidet|mezzanine|hospital|mannequin|animal(?!.*fish)|rocking"
    r"|outdoor, (?!deck, patio$)|garden|beach|mattress|sleeping|futon|tatami|camping|pallet|barrel|umbrella|christmas"
    r"|technical|piano(?! bench)|pool table|football|flipper|fireplace|furnace|chimney|water heater|bike|air conditioning|\bfan\b"
    r"|glass table|dressing|wall light|\bdoor\b(?!s)|(turn|double|sliding|french|arched) .*(window|door)|railing|curtain"
    r"|shower|stroller|scooter|tricycle|mower|clothes (horse|rack)|trampoline|projector|ceiling fan|contemporary"
    r"|corner cabinet|corner bath|upper shelves|island ext|opened convertible|tablet|double vanity"
)
# (kind, class, pattern): the first pattern found in an item's name, in lower case, determines its kind.
NAMES = (
    ("bed", "bed", r"\bbed(?!side)|day bed"),
    ("bedside", None, r"bedside|nightstand"),
    ("tv_stand", "cabinet", r"television cabinet|tv (stand|cabinet|unit)"),
    ("sofa", "sofa", r"sofa|couch|settee"),
    ("office_chair", "chair", r"(office|desk|swivel).*chair"),
    ("stool", "chair", r"stool|bar chair|piano bench"),
    ("armchair", "chair", r"armchair|easy chair"),
    ("pouf", "otherfurniture", r"puff|pouf"),
    ("chair", "chair", r"chair"),
    ("upper", "cabinet", r"upper cabinet|glass door cabinet"),
    ("base", "cabinet", r"drawers cabinet|lower cabinet"),
    ("sink_base", "cabinet", r"sink cabinet"),
    ("tall", "cabinet", r"high cabinet"),
    ("vanity", "cabinet", r"vanity"),
    ("bookshelf", "bookshelf", r"book(case|shel)|shelves|shelving"),
    ("wardrobe", "cabinet", r"wardrobe|cupboard|closet"),
    ("cabinet", "cabinet", r"cabinet|chest of|dresser|sideboard|drawers|commode|buffet"),
    ("desk_lamp", "otherfurniture", r"desk lamp"),
    ("lamp", "otherfurniture", r"lamp|lantern"),
    ("candle", None, r"candle"),
    ("coffee_table", "table", r"coffee table"),
    ("desk", "desk", r"desk"),
    ("table", "table", r"\btable"),
    ("toilet", "toilet", r"toilet(?! brush| paper)|\bwc\b"),
    ("basin", "sink", r"washbasin|lavatory|\bsink"),
    ("bathtub", "bathtub", r"bath(tub)?\b|jacuzzi"),
    ("fridge", "refrigerator", r"refrigerator|fridge(?!, freezer)"),
    ("hood", "otherfurniture", r"hood"),
    ("cooktop", "otherfurniture", r"cooktop|stove|induction cooker 4"),
    ("washer", "otherfurniture", r"washing machine|dryer|dishwasher|double oven"),
    ("oven", "otherfurniture", r"\boven"),
    ("wall_tv", "otherfurniture", r"wall.*tv"),
    ("tv", "otherfurniture", r"\btv\b(?! remote)|^television"),
    ("computer", "otherfurniture", r"imac|computer, desktop|monitor|laptop"),
    ("radiator", "otherfurniture", r"radiator"),
    ("plant", "otherfurniture", r"plant|ficus|bonsai|cactus|orchid|flowers|flower pot"),
    ("speaker", "otherfurniture", r"speaker(?!.*base)"),
    ("bin", "otherfurniture", r"dustbin|trash|basket\b"),
    ("box", "otherfurniture", r"\bbox\b|crate|suitcase"),
    ("towels", None, r"towel(?! holder)"),
    ("frame", None, r"^frame"),
    ("vase", None, r"vase|\bjar\b|pottery"),
)
CLUTTER = {"Kitchen": "food", "Bathroom": "toiletries", "Office": "stationery", "Living room": "trinket"}
CLUTTER |= {"Miscellaneous": "trinket", "Bedroom": "trinket"}
_NAMED = {kind: "lamp" for kind in ("ceiling_lamp", "floor_lamp", "table_lamp")} | {"small_plant": "plant"}
SMALL = 0.45  # metres: largest side of objects that are placed on furniture
# (pattern of the material's name, class, kinds): materials whose class differs from the item's; None: ignored.
MATERIALS = (
    (r"mirror|espejo", None, ("vanity", "basin", "wardrobe")),
    (r"counter", "counter", ("base", "sink_base")),
    (r"marble", "counter", ("vanity",)),
    (r"sink|ceramic|faience|faucet|cover|^metal$|^red$|^blue$", "sink", ("vanity", "sink_base")),
)


def kind_of(item: Item) -> str | None:
    """Return the kind of an item, or None if rooms do not use it."""
    name = item.name.lower()
    if item.category in OUTDOORS or re.search(UNUSED, f"{name}, {item.tags.lower()}"):
        return None
    for kind, _, pattern in NAMES:
        if re.search(pattern, name):
            return _by_size(kind, item)
    return CLUTTER.get(item.category) if 0.06 < max(item.size) <= SMALL else None


def _by_size(kind: str | None, item: Item) -> str | None:
    """Return the final kind of an item: some names stand for several kinds, which differ in size and height."""
    height = item.size[2]
    if kind == "lamp":
        return (
            "ceiling_lamp" if item.elevation > 1.2 or height > 1.7 else "floor_lamp" if height > 1.1 else "table_lamp"
        )
    if kind == "plant":
        return "plant" if height > 0.55 else "small_plant"
    if kind == "table":
        return "coffee_table" if height < 0.56 else "table"
    if kind == "chair" and item.category == "Office":
        return "office_chair"
    if kind == "box" and height > 0.9:
        return "cabinet"
    if kind == "basin" and item.elevation < 0.2 and height < 0.7:
        return None  # a basin to be built into a cabinet
    return kind


def class_of(kind: str, material: str) -> str | None:
    """Return the class of a material in an item of the given kind."""
    for pattern, label, kinds in MATERIALS:
        if kind in kinds and re.search(pattern, material, re.I):
            return label
    return next((label for name, label, _ in NAMES if name == _NAMED.get(kind, kind)), None)
