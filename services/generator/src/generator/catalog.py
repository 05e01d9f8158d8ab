"""What the synthetic shop sells: seeded products with names, categories, prices, costs and popularity. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from faker import Faker

NO_COST = -1
"""The unit cost of a product whose cost nobody wrote down."""

_ZIPF_EXPONENT = 1.05
"""Sales by rank of a general store: the best product of 500 takes a seventh of all lines."""

_WITHOUT_COST = 0.03
"""Share of products without a known cost: profit is null there, and readers must cope."""


@dataclass(frozen=True, slots=True)
class _Category:
    name: str
    typical_price: int
    """minor units; prices scatter around it"""
    things: str


_CATEGORIES = (
    _Category("Home", 1800, "Lantern,Cushion,Photo Frame,Wall Clock,Vase,Doormat,Candle Holder,Throw"),
    _Category("Kitchen", 1500, "Mug,Teapot,Chopping Board,Mixing Bowl,Apron,Cake Stand,Storage Jar,Whisk"),
    _Category("Garden", 2200, "Planter,Bird Feeder,Watering Can,Trowel,Wind Chime,Hanging Basket,Hose Reel"),
    _Category("Toys", 1700, "Puzzle,Kite,Building Set,Doll House,Spinning Top,Board Game,Plush Bear"),
    _Category("Stationery", 600, "Notebook,Fountain Pen,Gift Wrap,Card Set,Pencil Case,Desk Pad,Stamp Set"),
    _Category("Fashion", 3500, "Scarf,Tote Bag,Rain Jacket,Wool Hat,Belt,Linen Shirt,Pair of Gloves"),
    _Category("Sports", 4200, "Yoga Mat,Water Bottle,Skipping Rope,Racket,Football,Bike Light,Backpack"),
    _Category("Electronics", 8900, "Headphones,Desk Lamp,Speaker,Power Bank,Keyboard,Radio,Smart Plug"),
    _Category("Books", 1400, "Novel,Cookbook,Atlas,Biography,Picture Book,Poetry Collection,Field Guide"),
    _Category("Beauty", 1600, "Soap,Hand Cream,Bath Salts,Lip Balm,Shampoo Bar,Face Oil,Perfume"),
    _Category("Food", 900, "Tea Tin,Chocolate Box,Honey,Olive Oil,Biscuit Tin,Coffee Beans,Spice Rack"),
    _Category("Pets", 1300, "Dog Lead,Cat Tree,Chew Toy,Pet Blanket,Feeding Bowl,Collar,Bird Perch"),
)

_MAKERS = 300
"""Surnames in the pool of makers; Faker gives them once, so that its speed doesn't matter."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """The products as columns; a product is its row."""

    product_ids: list[str]
    names: list[str]
    categories: list[str]
    unit_amounts: npt.NDArray[np.int64]
    """minor units"""
    unit_costs: npt.NDArray[np.int64]
    """minor units; NO_COST where nobody knows"""
    cumulative_popularity: npt.NDArray[np.float64]
    """ascending to 1: the inverse of a uniform draw is a product, by Zipf's law"""

    def __len__(self) -> int:
        return len(self.product_ids)

    def draw(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """``count`` products (rows) as shoppers pick them."""
        drawn: npt.NDArray[np.int64] = np.searchsorted(self.cumulative_popularity, random.random(count), side="right")
        return np.minimum(drawn, len(self) - 1)


def build(seed: np.random.SeedSequence, products: int) -> Catalog:
    """A catalogue of ``products`` >= 1 products; the same seed gives the same one (with the same numpy and Faker)."""
    random = np.random.default_rng(seed)
    faker = Faker("en_US")
    faker.seed_instance(int(random.integers(2**63)))
    makers = [faker.last_name() for _ in range(_MAKERS)]
    colours = [faker.safe_color_name().title() for _ in range(_MAKERS)]

    category_of = random.integers(len(_CATEGORIES), size=products).tolist()
    things = random.integers(2**31, size=products).tolist()
    maker_of = random.integers(_MAKERS, size=products).tolist()
    colour_of = random.integers(_MAKERS, size=products).tolist()
    spread = random.lognormal(0.0, 0.5, size=products)
    margin = random.uniform(0.4, 0.7, size=products)
    cost_unknown = random.random(products) < _WITHOUT_COST

    times_named: dict[str, int] = {}
    product_ids, names, categories = [], [], []
    for row in range(products):
        category = _CATEGORIES[category_of[row]]
        choices = category.things.split(",")
        name = f"{makers[maker_of[row]]} {colours[colour_of[row]]} {choices[things[row] % len(choices)]}"
        times_named[name] = times_named.get(name, 0) + 1
        product_ids.append(f"{category.name[:3].upper()}-{row + 1:05d}")
        names.append(name if times_named[name] == 1 else f"{name} No. {times_named[name]}")
        categories.append(category.name)

    typical = np.array([_CATEGORIES[i].typical_price for i in category_of], dtype=np.float64)
    unit_amounts = np.maximum((typical * spread / 50).astype(np.int64) * 50, 100) - 1  # 4.99, 12.49: as shops price
    unit_costs = np.where(cost_unknown, NO_COST, (unit_amounts * margin).astype(np.int64))

    popularity = 1.0 / np.arange(1, products + 1) ** _ZIPF_EXPONENT
    random.shuffle(popularity)  # the best sellers are spread over the categories
    return Catalog(
        product_ids=product_ids,
        names=names,
        categories=categories,
        unit_amounts=unit_amounts,
        unit_costs=unit_costs,
        cumulative_popularity=np.cumsum(popularity / popularity.sum()),
    )
