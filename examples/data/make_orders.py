"""Makes `orders.jsonl`: 1,000 requests as a shop would receive them, the same on every run.

Most are orders of their own. Some are sent twice, some with another amount under a used id, some
with a card that is declined, some without an address or amount, a few are not JSON at all. Amounts
are decimals in strings; names and addresses are written as people write them.

    python examples/data/make_orders.py > examples/data/orders.jsonl
"""

from __future__ import annotations

import json
import random
import sys
from decimal import Decimal
from pathlib import Path

SEED = 20_260_101
LINES = 1_000
MERCHANTS = 10
ALTERED_DISTANCE = 20  # how far behind its original a request with another amount stands at least

NAMES = (
    "Zoë Müller", "José Álvarez", "Łukasz Wójcik", "Siobhán Ní Bhriain", "Đặng Thị Hồng", "王小明",
    "山田 花子", "김민준", "Νίκος Παπαδόπουλος", "Мария Иванова", "אורי כהן", "فاطمة الزهراء",
    "Ada Lovelace", "Bjørn Åkesson", "Ayşe Yılmaz", "Ólafur Þórsson", "अनिता शर्मा", "Thandiwe Mokoena",
    "Chloé O’Neill-Dubois", "Renée 'Ren' \"R.\" Smith",
)  # fmt: skip
STREETS = ("Große Straße", "Calle de Alcalá", "ul. Długa", "Rue de l’Église", "中山路", "本町通り", "High Street")
CITIES = ("Köln, DE", "Málaga, ES", "Kraków, PL", "Liège, BE", "上海, CN", "大阪, JP", "Leeds, GB", "Åre, SE")
CARDS = ("tok_visa", "tok_mastercard", "tok_amex", "tok_sepa")
DECLINES = ("tok_declined_funds", "tok_declined_stolen", "tok_declined_expired")
NOT_JSON = ('{"order_id": "torn', "order_id=17&amount=5.00", '{"order_id": "o-nan", "amount": NaN}', "[1, 2, 3]")

Order = dict[str, str]


def fresh(rng: random.Random, number: int) -> Order:
    """An order that nobody sent before."""
    name = rng.choice(NAMES)
    order = {
        "order_id": f"order-{number:05d}",
        "merchant_id": f"merchant-{rng.randint(1, MERCHANTS)}",
        "customer": name,
        "amount": str(Decimal(rng.randint(199, 9_999) * rng.choice((1, 1, 1, 1, 9))) / 100),
        "payment_method": rng.choice(DECLINES) if rng.random() < 0.055 else rng.choice(CARDS),
        "shipping_address": f"{name}, {rng.choice(STREETS)} {rng.randint(1, 240)}, {rng.choice(CITIES)}",
    }
    if rng.random() < 0.02:
        del order[rng.choice(("amount", "shipping_address"))]
    return order


def lines(seed: int = SEED) -> list[str]:
    """The file, line by line."""
    rng = random.Random(seed)
    orders: list[Order] = []
    made: list[str] = []
    while len(made) < LINES:
        kind = rng.random()
        if kind < 0.004:
            made.append(rng.choice(NOT_JSON))
        elif kind < 0.085 and orders:
            recent = orders[-min(len(orders), rng.choice((1, 3, 30, 400))) :]
            made.append(json.dumps(rng.choice(recent), ensure_ascii=False))
        elif kind < 0.095 and len(orders) > ALTERED_DISTANCE:
            original = rng.choice([order for order in orders[:-ALTERED_DISTANCE] if "amount" in order])
            amount = Decimal(original["amount"]) + 1
            made.append(json.dumps({**original, "amount": str(amount)}, ensure_ascii=False))
        else:
            orders.append(fresh(rng, len(orders) + 1))
            made.append(json.dumps(orders[-1], ensure_ascii=False))
    return made


def main() -> int:
    """Write the file to standard output, or to the path given."""
    text = "".join(f"{line}\n" for line in lines())
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.buffer.write(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
